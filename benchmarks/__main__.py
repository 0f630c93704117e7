"""All benchmarks with a goal, one after the other: `make bench`."""

from benchmarks import (
    bus_layer,
    chat_load_vs_llama_server,
    chat_load_vs_one_llama,
    delta_bytes,
    engine_vs_batched_bench,
    first_token_shared_prefix,
    gap_under_long_prompt,
    gap_while_drawing,
    http_overhead,
    path_overhead,
    pause_while_updating,
    pictures,
    resume_after_others,
    seven_b,
    startup,
    swap_memory,
    swap_time,
    swap_vs_llama_server,
    swaps_under_load,
)
from benchmarks.result import main

if __name__ == "__main__":
    main(
        startup.run,
        bus_layer.run,
        path_overhead.run,
        http_overhead.run,
        engine_vs_batched_bench.run,
        chat_load_vs_llama_server.run,
        chat_load_vs_one_llama.run,
        first_token_shared_prefix.run,
        gap_under_long_prompt.run,
        resume_after_others.run,
        seven_b.run,
        swaps_under_load.run,
        swap_time.run,
        pause_while_updating.run,
        delta_bytes.run,
        swap_memory.run,
        swap_vs_llama_server.run,
        pictures.run,
        gap_while_drawing.run,
    )
