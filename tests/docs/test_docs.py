"""The documents agree with the program and with each other, and the package shows the face that they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from paths import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
FOLDERS = ("moola_mlflow", "configs", "docs", "tests", "tools", "benchmarks", "examples", ".ci")
SUFFIXES = ("py", "yaml", "yml", "md", "toml", "ipynb", "png", "svg")


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def without_blocks(page: Path) -> str:
    """The text of a page with its code blocks emptied."""
    lines, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = line.startswith("```")
        inside = inside != fence
        lines.append("" if inside or fence or line.startswith("    ") else line)
    return "\n".join(lines)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MLflow's viewer make them; a repeated one gets a number."""
    found: dict[str, int] = {}
    out = set()
    for heading in re.findall(r"^#+ (.*)$", without_blocks(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        out.add(anchor if anchor not in found else f"{anchor}-{found[anchor]}")
        found[anchor] = found.get(anchor, 0) + 1
    return out


def shown(page: Path) -> set[str]:
    """Files that a page shows whole, for the reader to make."""
    return set(re.findall(r"^\*\*`([\w/.-]+)`\*\*$", page.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    text = re.sub(r"`[^`\n]*`", "", without_blocks(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        if not to.exists() or (anchor and anchor not in anchors(to)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(rf"`((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*)`", without_blocks(page))
    bare = re.findall(
        r"(?<![\w/.-])(docs/[\w/-]+\.md|configs/\w+\.yaml|tests/[\w/]+\.py)(?![\w/-])", without_blocks(page)
    )
    files = {name for name in [*named, *bare] if name.endswith("/") or name.rpartition(".")[2] in SUFFIXES}
    assert [name for name in sorted(files - shown(page)) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_preset_that_a_command_names_is_there(page: Path) -> None:
    named = set(re.findall(r"configs/\w+\.yaml", page.read_text(encoding="utf-8")))
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_the_readme_leads_to_every_page() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        there = [(page.parent / link).resolve() for link in links if not link.startswith("http")]
        waiting += [link for link in there if link.is_file() and link not in reached and link not in waiting]
    inside = [page for page in PAGES if page.parent != ROOT / "examples" and page.name != "CHANGELOG.md"]
    assert [name for name in names(inside) if ROOT / name not in reached] == []


def test_the_reference_page_is_what_the_program_says() -> None:
    import reference

    said = reference.PAGE.read_text(encoding="utf-8")
    assert said == reference.page(), "docs/reference/commands.md is stale; write it again: python tools/reference.py"


def test_the_reference_page_holds_every_command_parameter_and_key() -> None:
    import reference

    from moola_mlflow.cli.entry_points import ENTRY_POINTS
    from moola_mlflow.core import every_key

    page = reference.page()
    for name, entry in ENTRY_POINTS.items():
        part = page.split(f"\n### {name}\n")[1].split("\n### ")[0]
        assert [key for key in entry.parameters if f"| `{key}` |" not in part] == []
    assert [key for key in every_key() if f"| `{key}`" not in page] == []
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3, 4, 5, 6}  # no cell is cut by a bar in a value


# The library


def loaded(code: str) -> set[str]:
    """Which of the heavy packages a fresh interpreter has loaded after some code."""
    heavy = ("numpy", "pandas", "pydantic", "torch", "mlflow", "optuna", "matplotlib", "sklearn")
    script = f"import sys\nimport moola_mlflow as moola\n{code}\nprint(*(n for n in {heavy} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded("moola.__version__, dir(moola)") == set()


@pytest.mark.parametrize(
    "code",
    [
        "moola.BarsConfig(path='sample')",
        "bars = moola.read_bars(moola.BarsConfig(sample_bars=3000)); moola.make_windows(bars)",
        "moola.features.feature_names('relativity11'); moola.compute_features",
        "moola.windows.make_windows; moola.Windows; moola.Bars",
    ],
)
def test_bars_features_and_windows_need_neither_torch_nor_mlflow(code: str) -> None:
    assert loaded(code) & {"torch", "mlflow", "optuna"} == set()


def test_detections_and_embeddings_need_no_mlflow() -> None:
    assert "torch" in loaded("moola.scan")
    assert loaded("moola.scan; moola.embed") & {"mlflow", "optuna"} == set()


def test_every_name_of_the_library_is_there_documented_and_typed() -> None:
    import moola_mlflow as moola

    promised = {"load_encoder", "load_detector", "read_bars", "features", "windows", "detect", "load_study", "scan"}
    assert promised <= set(moola.__all__) <= set(dir(moola))
    source = Path(moola.__file__).read_text(encoding="utf-8")
    for name in moola.__all__:
        assert getattr(moola, name).__doc__, name
        typed = re.search(rf"^    from moola_mlflow.* import .*\b{name}\b", source, re.MULTILINE)
        assert typed or isinstance(getattr(moola, name), ModuleType), name
    assert (ROOT / "moola_mlflow" / "py.typed").is_file()
    with pytest.raises(AttributeError, match="has no attribute 'load_encodr'"):
        moola.load_encodr  # noqa: B018
