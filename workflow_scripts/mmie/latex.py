"""LaTeX tables that a paper can \\input: booktabs, escaped, nothing else needed."""

from __future__ import annotations

from collections.abc import Sequence

_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$", "×": r"$\times$",
    "÷": r"$\div$", "−": r"$-$", "–": "--", "—": "---", "≥": r"$\geq$", "≤": r"$\leq$", "∞": r"$\infty$",
    "≈": r"$\approx$", "α": r"$\alpha$", "…": r"\ldots{}", "“": "``", "”": "''", "’": "'",
}  # fmt: skip
_ESCAPES |= {digit: f"$^{{{i}}}$" for i, digit in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}


def escape(text: str) -> str:
    """
    The text as LaTeX prints it, with any engine.

    Raises ValueError for a character it has no LaTeX for, rather than writing a file that does not compile.
    """
    out = []
    for character in text:
        if character in _ESCAPES:
            out.append(_ESCAPES[character])
        elif character.isascii() and character.isprintable():
            out.append(character)
        else:
            raise ValueError(f"{text!r}: no LaTeX for the character {character!r}. Use another name.")
    return "".join(out)


def booktabs(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    align: str,
    caption: str,
    label: str,
    notes: str = "",
    groups: Sequence[tuple[int, str]] = (),
) -> str:
    """
    A floating table; every cell is escaped, and a line break in a header starts another line of the head.

    ``groups``: (columns, name) of the groups of columns from left to right, for a line above the head.
    Raises ValueError when a row is not as long as the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"table {label}: a row has {len(row)} cells, the header {len(header)}.")
    heads = [name.split("\n") for name in header]
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"  \caption{{{escape(caption)}}}",
        rf"  \label{{{label}}}",
        rf"  \begin{{tabular}}{{{align}}}",
        r"    \toprule",
    ]
    if groups:
        lines += _group_line(groups)
    for i in range(max(map(len, heads))):
        lines.append("    " + " & ".join(escape(name[i]) if i < len(name) else "" for name in heads) + r" \\")
    lines.append(r"    \midrule")
    lines += ["    " + " & ".join(map(escape, row)) + r" \\" for row in rows]
    lines += [r"    \bottomrule", r"  \end{tabular}"]
    if notes:
        lines += ["", rf"  \par\smallskip\footnotesize {escape(notes)}"]
    return "\n".join([*lines, r"\end{table}", ""])


def _group_line(groups: Sequence[tuple[int, str]]) -> list[str]:
    cells, rules, column = [], [], 1
    for width, name in groups:
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(name)}}}" if width else "")
        if name and width:
            rules.append(rf"\cmidrule(lr){{{column}-{column + width - 1}}}")
        column += width
    return ["    " + " & ".join(cell for cell in cells if cell) + r" \\", "    " + "".join(rules)]
