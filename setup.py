"Package metadata lives in settings.ini, the one place nbdev reads too."

import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
config = ConfigParser(delimiters=["="], interpolation=None)
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]

PAGES = ("glossary", "paper_map", "limits", "teaching")


class WithLessons(build_py):
    "Put the lessons and the pages beside them into the package; an editable install reads them where they are."

    def run(self):
        super().run()
        if getattr(self, "editable_mode", False):
            return
        target = Path(self.build_lib) / cfg["lib_path"] / "lessons"
        shutil.rmtree(target, ignore_errors=True)
        for folder, files in {
            target / "checkers": sorted(p for p in (here / "nbs" / "lessons" / "checkers").iterdir() if p.suffix in (".py", ".json")),
            target: [p for p in (here / "nbs" / "lessons").iterdir() if p.suffix in (".ipynb", ".json", ".csv")],
            target / "pages": [p for name in PAGES for p in (here / "nbs").rglob(f"{name}.ipynb") if ".ipynb_checkpoints" not in p.parts],
        }.items():
            folder.mkdir(parents=True, exist_ok=True)
            for path in files:
                shutil.copy(path, folder / path.name)


setup(
    cmdclass={"build_py": WithLessons},
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license=cfg["license"].upper(),
    keywords=cfg["keywords"].split(),
    classifiers=[
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Typing :: Typed",
        f"Intended Audience :: {cfg['audience']}",
    ],
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=[cfg["lib_path"], f"{cfg['lib_path']}.*"]),
    package_data={"": cfg["package_data"].split()},
    install_requires=cfg["requirements"].split(),
    extras_require={name: cfg[f"{name}_requirements"].split() for name in ("dev", "bench", "text", "site", "app")},
    entry_points={"console_scripts": cfg["console_scripts"].split()},
    zip_safe=False,
)
