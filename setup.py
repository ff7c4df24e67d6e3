"""What pyproject.toml cannot say: a wheel holds the presets of configs/ as moola_mlflow/presets/."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithPresets(build_py):
    """The usual build, and the presets. An editable install reads configs/ itself."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for preset in sorted(Path("configs").glob("*.yaml")):
            target = Path(self.build_lib) / "moola_mlflow" / "presets" / preset.name
            self.mkpath(str(target.parent))
            self.copy_file(str(preset), str(target))


setup(cmdclass={"build_py": BuildWithPresets})
