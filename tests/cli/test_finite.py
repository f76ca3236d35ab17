"""Numbers of options are finite."""

import pytest

from jettison.cli.main import main


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize(
    "command",
    [("cost", "m", "--usd-per-hour"), ("cost", "m", "--budget"), ("compare", "a", "b", "--kl-at-most")],
)
def test_an_option_that_is_no_finite_number_is_refused(capsys, command, value):
    with pytest.raises(SystemExit) as stopped:
        main([*command, value])
    assert stopped.value.code == 2
    assert "is not a finite number." in capsys.readouterr().err
