"""Which shop an operator's command means, who acts, and what the launcher does not load for it."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from eshop.cli.operators import operator_name, target
from eshop.cluster.errors import ClusterError
from eshop.cluster.folder import DataFolder, ProcessRecord, RunRecord


@pytest.fixture(autouse=True)
def default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A default data folder of the test's own, where nothing runs, and no settings."""
    for name in ("ESHOP_ORDERS_GRPC", "ESHOP_PAYMENTS_GRPC", "ESHOP_SERVICE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "default"
    monkeypatch.setenv("ESHOP_DATA", str(folder))
    return folder


def run_in(folder: Path, *, created: float | None = None, port: int = 6000) -> None:
    """Write down that this very process is a launcher of two orders workers and one of payments."""
    folder.mkdir()
    processes = tuple(
        ProcessRecord(name, name.split("-")[0], 1, "running", ports, 0.0, 0)
        for name, ports in [
            ("kafka", {"kafka": 1}),
            ("orders", {"http": 2, "grpc": port}),
            ("orders-2", {"http": 3, "grpc": port + 1}),
            ("payments", {"http": 4, "grpc": port + 2}),
        ]
    )
    itself = psutil.Process()
    started = itself.create_time() if created is None else created
    DataFolder(folder).write(RunRecord(itself.pid, started, ready=True, processes=processes))


def test_without_a_running_shop_the_settings_say_where() -> None:
    found = target("payments", None)
    assert (found.addresses, found.token) == ("127.0.0.1:50052", "development-service-token")


def test_a_shop_in_the_default_folder_is_found_on_its_ports(default_folder: Path) -> None:
    run_in(default_folder)
    assert target("orders", None).addresses == "127.0.0.1:6000,127.0.0.1:6001"
    assert target("payments", None).addresses == "127.0.0.1:6002"


def test_a_shop_that_has_ended_is_not_meant(default_folder: Path) -> None:
    run_in(default_folder, created=1.0)
    assert target("orders", None).addresses == "127.0.0.1:50051"


def test_a_named_folder_goes_before_a_setting_and_that_before_the_default_folder(
    default_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in(default_folder)
    monkeypatch.setenv("ESHOP_ORDERS_GRPC", "shop.example:1")
    assert target("orders", None).addresses == "shop.example:1"
    run_in(tmp_path / "named", port=7000)
    assert target("orders", tmp_path / "named").addresses == "127.0.0.1:7000,127.0.0.1:7001"


def test_a_named_folder_where_nothing_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="nothing runs in"):
        target("orders", tmp_path)


def test_the_os_user_acts_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "olga")
    assert operator_name(None) == "olga"
    assert operator_name("oscar") == "oscar"


def test_an_os_user_without_a_name_acts_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert operator_name(None).startswith("uid ")


def test_the_launcher_loads_no_grpc() -> None:
    code = "import sys, eshop.cli.main; print(sorted({'grpc', 'google.protobuf'} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "[]"
