"""Pages of the documentation site that are made from other files: the Python API, the notebook, the changelog.

MkDocs calls the functions whose names begin with ``on_`` (mkdocs.yml, ``hooks``). Links between pages are those that
GitHub follows; the few that leave docs/ are led to their place in the site.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ("PretrainResult", "LabelResult", "FinetuneResult", "EvaluateResult", "DetectResult")
"""What the functions of the Python API return."""
ELSEWHERE = {
    "../../examples/notebook.ipynb": "../tutorials/notebook.md",
    "../examples/notebook.ipynb": "tutorials/notebook.md",
}
"""Links of docs/ that lead out of it, and where the site has their targets. Presets are copied to the site."""
BEFORE_LINK = r"(\]\()"


def api_page() -> str:
    """Return the page of what ``moola_mlflow`` exports: classes and functions with their docstrings."""
    names = [name for name in exported() if name not in ("features", "windows")]
    results = [f"moola_mlflow.reports.{name}" for name in RESULTS]
    parts = [
        "# Python API",
        "Everything here is imported from `moola_mlflow` itself, and loaded at its first use: "
        "`import moola_mlflow as moola`.",
        *(f"::: moola_mlflow.{name}" for name in names),
        "# What the commands return",
        *(f"::: {name}\n    options:\n      inherited_members: true" for name in results),
    ]
    return "\n\n".join(parts) + "\n"


def exported() -> list[str]:
    """Return the names of ``moola_mlflow.__all__``, read without importing the package."""
    tree = ast.parse((ROOT / "moola_mlflow" / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    raise ValueError("moola_mlflow/__init__.py has no __all__")


def notebook_page() -> str:
    """Return the example notebook as a page: its text, and its code as blocks."""
    cells = json.loads((ROOT / "examples" / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"]).strip()
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def changelog_page() -> str:
    """Return the changelog, with its links as the site's root has them."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return re.sub(BEFORE_LINK + "docs/", r"\1", text)


PAGES = {"reference/api.md": api_page, "tutorials/notebook.md": notebook_page, "changelog.md": changelog_page}


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add the made pages and the presets to the files of docs/."""
    from mkdocs.structure.files import File

    for name, make in PAGES.items():
        files.append(File.generated(config, name, content=make()))
    for preset in sorted((ROOT / "configs").glob("*.yaml")):
        files.append(File.generated(config, f"configs/{preset.name}", content=preset.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page whose links stay within the site."""
    for there, here in ELSEWHERE.items():
        markdown = markdown.replace(f"]({there})", f"]({here})")
    return re.sub(BEFORE_LINK + r"\.\./\.\./configs/", r"\1../configs/", markdown)
