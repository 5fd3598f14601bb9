"""What we keep of other catalogues is what the pinned packages hold. That our entries agree with it is tested in Rust."""

from pathlib import Path

from catalogues.extract import table

CHECKED_IN = Path(__file__).parent / "catalogues/endpoints.toml"


def test_the_table_of_endpoints_is_what_the_packages_hold() -> None:
    assert table() == CHECKED_IN.read_text(), "made anew by `e2e/run catalogues`"
