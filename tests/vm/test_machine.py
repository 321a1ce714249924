"""What the guest's machine is made of: kernel parameters, devices, processors."""

from collections.abc import Callable

from tests.vm.conftest import Sweep

Run = Callable[..., Sweep]


def test_kernel_parameters(sweep: Run) -> None:
    words = ["slub_debug=FZP loglevel=7", 'quizmatrix.text="two  words"']
    script = "cat /proc/cmdline; cut -f1 /proc/sys/kernel/printk"
    done = sweep(script, options=("--append", words[0], "--append", words[1]))
    for cell in done.cells.values():
        folder = done.folder / cell["cell"]
        line, level = (folder / "stdout").read_text().splitlines()
        assert line.endswith(" ".join(words))
        assert level == "7"
        assert cell["append"] == " ".join(words)
        script = (folder / "reproduce.sh").read_text()
        assert f"--append '{' '.join(words)}'" in script
        assert f"oops=panic {' '.join(words)}'" in script
