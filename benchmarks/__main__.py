"""All benchmarks with a goal, one after the other: `make bench`."""

from benchmarks import bus_layer, chat_load_vs_llama_server, http_overhead, path_overhead, startup
from benchmarks.result import main

if __name__ == "__main__":
    main(startup.run, bus_layer.run, path_overhead.run, http_overhead.run, chat_load_vs_llama_server.run)
