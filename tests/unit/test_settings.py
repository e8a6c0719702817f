"""Settings: where they come from, and what production refuses."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from eshop.settings import Settings

PRODUCTION = {
    "environment": "production",
    "service_token": "s3",
    "admin_database_url": "",
    "database_url": "postgresql://orders_app:s3@postgres:5432/orders",
    "redis_url": "redis://:s3@redis:6379/0",
}
KNOWN = {
    "service_token": "development-service-token",
    "admin_database_url": "postgresql://postgres:postgres@postgres:5432/postgres",
    "database_url": "postgresql://orders_app:orders_app@postgres:5432/orders",
    "redis_url": "redis://redis:6379/0",
}


def refused(values: dict[str, str]) -> set[str]:
    """Return the names of the settings that are refused."""
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(values)
    return {str(error["loc"][0]) for error in caught.value.errors()}


def test_production_takes_secrets_of_its_own() -> None:
    assert Settings.model_validate(PRODUCTION).environment == "production"


def test_production_refuses_all_that_everybody_knows_at_once() -> None:
    assert refused(PRODUCTION | KNOWN) == set(KNOWN)


def test_production_has_no_defaults_for_secrets() -> None:
    assert refused({"environment": "production"}) == set(KNOWN) - {"database_url"}
    settings = Settings.model_validate(PRODUCTION | {"database_url": None})
    with pytest.raises(ValueError, match="ESHOP_DATABASE_URL is not set"):
        settings.service_database_url("orders")


@pytest.mark.parametrize("module", ["eshop.orders", "gateway"])
def test_a_process_ends_at_once_and_says_why(module: str) -> None:
    command = [
        sys.executable,
        "-c",
        f"from runpy import run_module; run_module('{module}', run_name='__main__')",
    ]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={"ESHOP_ENVIRONMENT": "production"},
    )
    assert done.returncode == 1
    assert "service_token\n  Value error, production needs a token of its own" in done.stderr


def test_more_copies_in_sync_than_copies_are_refused() -> None:
    assert refused({"topic_replication": "1", "topic_min_in_sync": "2"}) == {"topic_min_in_sync"}


def test_what_no_variable_sets_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "eshop_service_token").write_text("from a file\n")
    settings = Settings(_secrets_dir=tmp_path)
    assert settings.service_token.get_secret_value() == "from a file"
    assert "from a file" not in repr(settings)
