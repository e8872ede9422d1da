"""README.md from nbs/index.ipynb: the markdown as it is, the code cells as fenced blocks with their text output.

`python tools/readme.py` writes it; a test keeps it fresh. A cell marked `#| hide` is left out.
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def render(index: Path) -> str:
    "The README that belongs to the notebook at `index`."
    parts = []
    for cell in json.loads(index.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            # the README lies one folder higher
            parts.append(re.sub(r"\]\((images|lessons|reference)/", r"](nbs/\1/", source))
        elif cell["cell_type"] == "code" and not re.search(r"^#\|\s*hide", source, re.M):
            code = "\n".join(
                line for line in source.splitlines() if not line.startswith("#|")
            ).strip()
            parts.append(f"```python\n{code}\n```")
            printed = "".join(
                "".join(o.get("text", o.get("data", {}).get("text/plain", "")))
                for o in cell["outputs"]
            ).strip()
            if printed:
                parts.append(f"```text\n{printed}\n```")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    (ROOT / "README.md").write_text(render(ROOT / "nbs" / "index.ipynb"), encoding="utf-8")
