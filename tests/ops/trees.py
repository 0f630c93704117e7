"""Made trees of /sys: an Intel laptop, an AMD server, an ARM board, a container. Figures are of real machines."""

from __future__ import annotations

from pathlib import Path

CPUFREQ = "devices/system/cpu/cpufreq"
MAX_RANGE = 262_143_328_850
"""What `max_energy_range_uj` says on most Intel machines."""


class Tree:
    """One made tree. `put` makes or changes files, `get` reads one back."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def put(self, folder: str, **values: object) -> None:
        place = self.root / folder
        place.mkdir(parents=True, exist_ok=True)
        for name, value in values.items():
            (place / name).write_bytes(value if isinstance(value, bytes) else f"{value}\n".encode())

    def get(self, path: str) -> str:
        return (self.root / path).read_text().strip()

    def clocks(
        self, count: int, driver: str, governors: str, governor: str, preferences: str = "", now: str = ""
    ) -> None:
        for i in range(count):
            folder = f"{CPUFREQ}/policy{i}"
            self.put(folder, scaling_driver=driver, scaling_available_governors=governors, scaling_governor=governor)
            if preferences:
                self.put(
                    folder, energy_performance_available_preferences=preferences, energy_performance_preference=now
                )

    def governors(self) -> set[str]:
        return {path.read_text().strip() for path in (self.root / CPUFREQ).glob("policy*/scaling_governor")}

    def preferences(self) -> set[str]:
        found = (self.root / CPUFREQ).glob("policy*/energy_performance_preference")
        return {path.read_text().strip() for path in found}

    def plug(self, online: bool) -> None:
        """Mains in or out, with a battery that says so."""
        self.put("class/power_supply/AC", type="Mains", online=int(online))
        self.put("class/power_supply/BAT0", status="Charging" if online else "Discharging")

    def zone(self, name: str, label: str, energy: int, limit: int = MAX_RANGE) -> None:
        self.put(f"class/powercap/{name}", name=label, energy_uj=energy, max_energy_range_uj=limit)


def laptop(root: Path) -> Tree:
    """intel_pstate in active mode, RAPL with subdomains and the same package over MMIO, a battery and a mouse's."""
    tree = Tree(root)
    preferences = "default performance balance_performance balance_power power"
    tree.clocks(4, "intel_pstate", "performance powersave", "powersave", preferences, "balance_power")
    tree.zone("intel-rapl:0", "package-0", 1_000_000)
    tree.zone("intel-rapl:0:0", "core", 700_000)
    tree.zone("intel-rapl:0:1", "uncore", 100_000)
    tree.zone("intel-rapl:1", "psys", 9_000_000)
    tree.zone("intel-rapl-mmio:0", "package-0", 1_000_000)
    tree.put("class/power_supply/BAT0", type="Battery", present=1, power_now=0, current_now=0, voltage_now=11_400_000)
    tree.plug(True)
    tree.put("class/power_supply/hidpp_battery_0", type="Battery", scope="Device", status="Discharging", power_now=5)
    tree.put("class/hwmon/hwmon0", name="coretemp", temp1_input=45_000)
    tree.put("class/hwmon/hwmon1", name="BAT0", power1_input=77_000_000)
    return tree


def server(root: Path) -> Tree:
    """acpi-cpufreq, two AMD packages of which one counts its memory, a power meter of the whole machine."""
    tree = Tree(root)
    governors = "conservative ondemand userspace powersave performance schedutil"
    tree.clocks(8, "acpi-cpufreq", governors, "ondemand")
    tree.zone("intel-rapl:0", "package-0", 5_000_000, 65_532_610_987)
    tree.zone("intel-rapl:0:0", "core", 2_000_000, 65_532_610_987)
    tree.zone("intel-rapl:0:1", "dram", 400_000, 65_532_610_987)
    tree.zone("intel-rapl:1", "package-1", 7_000_000, 65_532_610_987)
    tree.put("class/hwmon/hwmon0", name="power_meter", power1_average=211_000_000)
    return tree


def board(root: Path) -> Tree:
    """cpufreq-dt with two clusters, and rails that feed each other."""
    tree = Tree(root)
    tree.clocks(1, "cpufreq-dt", "conservative ondemand userspace powersave performance schedutil", "schedutil")
    tree.put(
        f"{CPUFREQ}/policy4", scaling_driver="cpufreq-dt", scaling_available_governors="performance powersave",
        scaling_governor="performance",
    )  # fmt: skip
    tree.put("class/hwmon/hwmon0", name="cpu_thermal", temp1_input=51_000)
    tree.put("class/hwmon/hwmon1", name="ina226", power1_input=6_250_000)
    tree.put("class/hwmon/hwmon2", name="ina226", power1_input=2_500_000)
    return tree


def container(root: Path) -> Tree:
    """A host's tree as a container shows it: there to look at. `closed` takes the rights away."""
    tree = laptop(root)
    for name in ("AC", "BAT0", "hidpp_battery_0"):
        for file in (root / "class/power_supply" / name).iterdir():
            file.unlink()
        (root / "class/power_supply" / name).rmdir()
    return tree


def closed(tree: Tree) -> None:
    """Nothing may be written, and no counter read, by its owner either."""
    for path in sorted(tree.root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0 if path.name == "energy_uj" else 0o444)
    tree.root.chmod(0o755)
