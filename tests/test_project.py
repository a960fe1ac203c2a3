"""What has to agree across files: one version everywhere, and documents whose links and paths exist."""

import re
from pathlib import Path

import pytest
import yaml

from lobar.core.version import __version__

ROOT = Path(__file__).resolve().parents[1]
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = [*GUIDES, ROOT / "CHANGELOG.md"]
MANIFESTS = [*sorted((ROOT / "workflows").glob("*.yaml")), *sorted((ROOT / "k8s").rglob("*.yaml"))]
IMAGE_TAG = re.compile(r"(?<![\w.-])lobar(?:-train)?:(\d+\.[\w.-]*\w)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
REPOSITORY_PATH = re.compile(
    r"(?<![\w./:$-])(?:\.ci|bench|dev|docs|jobs|k8s|lib|requirements|tests|workflows)/[\w./*-]*"
)
LIBRARY_PATH = re.compile(
    r"(?<![\w./:-])(?:core|storage|imaging|data|training|inference|evaluation|workflow|synthetic)/[\w/]+\.py\b"
)
DOCUMENT = re.compile(r"\bdocs/[\w-]+\.\w+")
TEXT = {".py", ".yaml", ".html", ".go"}
FORBIDDEN = re.compile(r"\b(films?|anew|mend(?:s|ed|ing)?|beside|told to stop)\b", re.IGNORECASE)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _anchors(document: Path) -> set[str]:
    """The anchors that Markdown renderers make of the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_dockerfile_has_the_version_of_the_library() -> None:
    labels = re.findall(r'image\.version="([^"]*)"', (ROOT / "Dockerfile").read_text())
    assert labels == [__version__]


def test_pyproject_reads_the_version_of_the_library() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in text
    assert 'version = {attr = "lobar.core.version.__version__"}' in text


@pytest.mark.parametrize("path", [*MANIFESTS, *GUIDES], ids=_name)
def test_image_tags_have_the_version_of_the_library(path: Path) -> None:
    assert set(IMAGE_TAG.findall(path.read_text())) <= {__version__}


def test_workflows_and_readme_name_both_images() -> None:
    for paths in (MANIFESTS, [ROOT / "README.md"]):
        text = "\n".join(path.read_text() for path in paths)
        assert f"lobar:{__version__}" in text
        assert f"lobar-train:{__version__}" in text


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_links_resolve(document: Path) -> None:
    broken = []
    for link in LINK.findall(FENCED.sub("", document.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("document", GUIDES, ids=_name)
def test_paths_in_documents_exist(document: Path) -> None:
    """Paths from the root or from `lib/lobar/`; one with capitals (`jobs/NAME.py`) is a placeholder."""
    text = document.read_text()
    found = [(ROOT, path.rstrip(".")) for path in REPOSITORY_PATH.findall(text)]
    found += [(ROOT / "lib/lobar", path) for path in LIBRARY_PATH.findall(text)]
    missing = [
        path
        for folder, path in found
        if not re.search("[A-Z]", path) and not any(folder.glob(path.rstrip("/")))
    ]
    assert missing == []


@pytest.mark.parametrize(
    "folder", ["Makefile", "Dockerfile", "bench", "dev", "jobs", "k8s", "lib", "workflows"]
)
def test_documents_that_other_files_name_exist(folder: str) -> None:
    path = ROOT / folder
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.suffix in TEXT]
    named = {(_name(file), name) for file in files for name in DOCUMENT.findall(file.read_text())}
    assert sorted((file, name) for file, name in named if not (ROOT / name).exists()) == []


def test_readme_fits_on_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_documents_use_plain_words(document: Path) -> None:
    lines = enumerate(document.read_text().splitlines(), 1)
    assert [(number, FORBIDDEN.findall(line)) for number, line in lines if FORBIDDEN.search(line)] == []


def test_pre_commit_needs_no_other_repository() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    hooks = {hook["id"]: hook["entry"] for hook in config["repos"][0]["hooks"]}
    assert set(hooks) == {"ruff-format", "ruff-check", "mypy", "import-linter"}
    assert all(entry.startswith(".venv/bin/") for entry in hooks.values())
