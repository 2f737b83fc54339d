"""Progress: the bar of `verbose`, and the callback that can stop the work."""

from __future__ import annotations

import pytest

from lrla._progress import Progress


def _run(progress, steps=3):
    with progress:
        for i in range(steps):
            if progress.step(error=1.0 / (i + 1)):
                return i + 1
    return steps


def test_silent_by_default(capfd):
    assert _run(Progress("Fitting", 3)) == 3
    assert capfd.readouterr() == ("", "")


def test_verbose_shows_description_and_steps_on_standard_error(capfd):
    _run(Progress("Fitting", 3, verbose=1))
    out, err = capfd.readouterr()
    assert out == ""
    assert "Fitting" in err
    assert "3/3" in err


def test_callback_sees_every_step_with_its_numbers():
    seen = []
    _run(Progress("Fitting", 3, callback=lambda info: seen.append(dict(info))))
    assert seen == [{"iteration": i, "error": 1.0 / i} for i in (1, 2, 3)]


@pytest.mark.parametrize(("answer", "steps"), [(True, 1), (1, 1), (None, 3), (False, 3), (0, 3)])
def test_a_true_answer_stops(answer, steps):
    assert _run(Progress("Fitting", 3, callback=lambda info: answer)) == steps


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_exception_in_the_callback_closes_the_bar_and_goes_on(error, monkeypatch):
    import tqdm.auto

    bars = []

    class Bar:
        def __init__(self, **options):
            bars.append(self)
            self.closed = False

        def set_postfix(self, numbers, refresh):
            pass

        def update(self):
            pass

        def close(self):
            self.closed = True

    def interrupt(info):
        raise error

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    with pytest.raises(error):
        _run(Progress("Fitting", 3, verbose=1, callback=interrupt))
    assert [bar.closed for bar in bars] == [True]


@pytest.mark.parametrize("callback", [1, "stop", [print]])
def test_callback_must_be_callable(callback):
    with pytest.raises(TypeError, match="callback must be callable or None; got"):
        Progress("Fitting", 3, callback=callback)
