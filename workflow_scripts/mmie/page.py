"""
The report as one HTML file: template and rendering.

The template is a string here, and not a file of its own, so that a change in it changes the code digest of the rule.
"""

# ruff: noqa: E501 (HTML and CSS)

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mmie import fonts
from mmie.page_style import STYLE

TEMPLATE = """\
{% macro plain(table, kind="") %}
<div class="scroll">
<table class="numbers{{ " " ~ kind if kind }}">
<caption>{{ table.caption }}</caption>
<thead><tr>{% for name in table.header %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}<tr>{% for value in row %}{% if loop.first %}<th scope="row">{{ value }}</th>{% else %}<td>{{ value }}</td>{% endif %}{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endmacro %}
{%- macro dot(colour) -%}<span class="dot" style="background:{{ colour }}"></span>{%- endmacro -%}
{%- macro pill(verdict) -%}<span class="pill {{ verdict | lower | replace(' ', '-') }}">{{ verdict }}</span>{%- endmacro -%}
{%- macro mark(row) -%}<span class="mark {{ row.outcome }}" title="{{ row.word }}">{{ row.symbol }}</span>{%- endmacro -%}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
{{ style }}
{% for arm in sample_arms %}
body:has(#show-{{ loop.index0 }}:not(:checked)) .arm-{{ loop.index0 }} { display: none; }
{% endfor %}
</style>
</head>
<body>
<header>
<p class="kicker">MMIE · multilingual unlearning report</p>
<h1>{{ title }}</h1>
<p class="facts">{{ model }} <span>·</span> {{ decision.scope }} <span>·</span> config {{ decision.config_hash }}</p>
<nav><a href="#verdict">Verdict</a> <a href="#why">Why</a> <a href="#samples">Continuations</a> <a href="#figures">Figures</a>
{% if latents %}<a href="#latents">Latents</a> {% endif %}<a href="#limits">Scope and limits</a> <a href="#reproduce">Reproduce</a></nav>
</header>

<main>
<section id="lead">
{% for paragraph in lead %}
<p>{{ paragraph }}</p>
{% endfor %}
</section>

<section id="verdict">
<h2>Verdict</h2>
{% for line in headline %}
<p class="{{ 'headline' if loop.first else 'second' }}">{{ line }}</p>
{% endfor %}
{% if verdicts %}
<div class="scroll">
<table class="verdicts">
<thead>
<tr><th scope="col">Arm</th><th scope="col">Verdict</th>
{% for gate in gates %}<th scope="col" title="{{ gate.asks }}"><b>{{ gate.gate }}</b> <span>{{ gate.title }}</span></th>
{% endfor %}</tr>
</thead>
{% for row in verdicts %}
<tbody>
<tr>
<th scope="rowgroup" rowspan="2">{{ dot(row.colour) }}{{ row.arm }}</th>
<td class="verdict">{{ pill(row.verdict) }}{% if row.also %}<span class="also">{{ row.also }}</span>{% endif %}</td>
{% for cell in row.cells %}
<td class="cell {{ cell.outcome }}" title="{{ cell.about }}"><span class="symbol">{{ cell.symbol }}</span>
{% if cell.estimate %}<b>{{ cell.estimate }}</b><span>{{ cell.margin }}</span><span>{{ cell.p | tight }}</span>{% else %}<span>{{ cell.word }}</span>{% endif %}</td>
{% endfor %}
</tr>
<tr><td class="sentence" colspan="{{ 1 + gates | length }}"><div>{{ row.sentence | tight }}</div></td></tr>
</tbody>
{% endfor %}
</table>
</div>
<p class="legend"><span class="mark pass">✓</span> passed: failure is ruled out at p ≤ {{ decision.alpha }}
<span class="mark fail">✗</span> failed
<span class="mark unclear">?</span> the data cannot tell
<span class="mark missing">–</span> not tested.
Each cell shows the gate's worst part: its estimate, the margin it must stay below, and p.</p>
<dl class="words">
<div><dt>{{ pill('PROCEED') }}</dt><dd>Every core gate (G1–G6) passed.</dd></div>
<div><dt>{{ pill('STOP') }}</dt><dd>Some gate is on the failing side of its margin, or did not pass although a good arm surely would have.</dd></div>
<div><dt>{{ pill('CANNOT CERTIFY') }}</dt><dd>Nothing failed, and the data do not suffice to say that all is well.</dd></div>
</dl>
{% endif %}
{% if assay %}
<p class="assay">The assay works only if base itself speaks {{ forget }}. Its rate of continuations in {{ forget }}:
{% for found in assay %}{{ found.family }} {{ found.text }}{% if not found.ok %} <b class="warn">too rarely: {{ found.reason }}</b>{% endif %}{{ '; ' if not loop.last else '.' }}
{% endfor %}</p>
{% endif %}
</section>

<section id="why">
<h2>Why</h2>
<p>The gates ask, in this order:</p>
<dl class="asks">
{% for gate in asks %}<div><dt>{{ gate.gate }}</dt><dd><b>{{ gate.title }}.</b> {{ gate.asks }}</dd></div>
{% endfor %}
</dl>
{% for arm in why %}
<article class="arm">
<h3>{{ dot(arm.colour) }}{{ arm.arm }} {{ pill(arm.verdict) }}</h3>
{% if arm.about %}<p class="about">{{ arm.about | replace('`', '') }}</p>{% endif %}
<ul class="reasons">
{% for reason in arm.reasons %}<li>{{ reason | tight }}</li>
{% endfor %}
</ul>
<div class="scroll">
<table class="numbers">
<caption>The part that decided each gate. Over {{ arm.covers }}: {{ arm.p }}{% if arm.q != '–' %}; over the arms: Benjamini–Hochberg q {{ arm.q }}, Benjamini–Yekutieli {{ arm.p_by }}, Holm {{ arm.p_holm }}{% endif %}. Over {{ arm.extended.covers }}: {{ arm.extended.verdict }}, {{ arm.extended.p }}{% if arm.extended.q != '–' %}, q {{ arm.extended.q }}{% endif %}.</caption>
<thead><tr><th></th><th>Gate</th><th>Deciding part</th><th>Base</th><th>Arm</th><th>Estimate</th><th></th><th>95 % interval</th><th>Margin</th><th>p</th><th title="adjusted over the arm's gates (Benjamini–Hochberg)">q</th><th title="independent groups (G6: members) in the test">n</th><th title="chance of a good arm to be recognised by this test, where it did not pass">Power</th><th title="how many would do for a good arm to be recognised">n needed</th></tr></thead>
<tbody>
{% for gate in arm.gates %}
<tr{% if not gate.core %} class="extra"{% endif %}><td>{{ mark(gate) }}</td><th scope="row">{{ gate.gate }} {{ gate.title }}{% if not gate.core %} <i>(not core)</i>{% endif %}{% if gate.vacuous %} <i>(could not fail)</i>{% endif %}</th>
{% if gate.part %}<td>{{ gate.part }}</td><td>{{ gate.base }}</td><td>{{ gate.value }}</td><td><b>{{ gate.estimate }}</b></td><td class="unit">{{ gate.quantity }}</td><td class="tight">{{ gate.interval }}</td><td>{{ gate.margin }}</td><td class="tight">{{ gate.p }}</td><td class="tight">{{ gate.q }}</td><td>{{ gate.n }}</td><td>{{ gate.power }}</td><td>{{ gate.needed }}</td>{% else %}<td colspan="12">{{ gate.word }}: {{ gate.reason }}</td>{% endif %}</tr>
{% endfor %}
</tbody>
</table>
</div>
<details>
<summary>All {{ arm.n_parts }} tests of {{ arm.arm }}</summary>
<div class="scroll">
<table class="numbers parts">
<thead><tr><th></th><th>Part</th>{% if arm.seeds %}<th>Seed</th>{% endif %}<th>Base</th><th>Arm</th><th>Estimate</th><th></th><th>95 % interval</th><th>Margin</th><th>p</th><th>n</th><th>Power</th></tr></thead>
{% for gate in arm.gates %}
<tbody>
<tr class="group"><th colspan="{{ 12 if arm.seeds else 11 }}" scope="rowgroup">{{ gate.gate }} {{ gate.title }}</th></tr>
{% for part in gate.parts %}
<tr title="{{ part.about }}"><td>{{ mark(part) }}</td><th scope="row">{{ part.name }}</th>{% if arm.seeds %}<td>{{ part.seed }}</td>{% endif %}<td>{{ part.base }}</td><td>{{ part.value }}</td><td><b>{{ part.estimate }}</b></td><td class="unit">{{ part.quantity }}</td><td class="tight">{{ part.interval }}</td><td>{{ part.margin }}</td><td class="tight">{{ part.p }}</td><td>{{ part.n }}</td><td>{{ part.power }}</td></tr>
{% endfor %}
</tbody>
{% endfor %}
</table>
</div>
</details>
</article>
{% endfor %}
</section>

{% if contrasts %}
<section id="contrasts">
<h2>Arms against each other</h2>
{% for table in contrasts %}
{{ plain(table) }}
{% endfor %}
</section>
{% endif %}

<section id="samples">
<h2>What the arms write</h2>
<p>{{ samples | length }} prompts, drawn by seed and evenly over the prompt families, and what every arm makes of them. The badge is
the detector's label; a ring around an answer marks {{ forget }}. Nothing was picked by hand.</p>
<fieldset class="chips"><legend>Show</legend>
{% for arm in sample_arms %}
<label><input type="checkbox" id="show-{{ loop.index0 }}" checked>{{ dot(arm.colour) }}{{ arm.arm }}</label>
{% endfor %}
</fieldset>
{% for sample in samples %}
<article class="sample">
<div class="prompt"><span class="family{{ ' forget' if sample.forgotten }}">{{ sample.family }}</span>
<p class="model" dir="auto"{% if sample.lang %} lang="{{ sample.lang }}"{% endif %}>{{ sample.text }}&nbsp;…</p>
{% if sample.meaning %}<p class="meaning">{{ sample.meaning }}</p>{% endif %}</div>
<div class="answers">
{% for answer in sample.answers %}
<div class="answer arm-{{ answer.index }}{{ ' les' if answer.les }}">
<p class="who">{{ dot(answer.arm_colour) }}{{ answer.arm }} <span class="badge"><i style="background:{{ answer.colour }}"></i>{{ answer.badge }}</span></p>
<p class="model" dir="auto"{% if answer.lang %} lang="{{ answer.lang }}"{% endif %}>{% if answer.text %}{{ answer.text }}{% else %}<i>(nothing)</i>{% endif %}</p>
</div>
{% endfor %}
</div>
</article>
{% endfor %}
</section>

<section id="figures">
<h2>Figures</h2>
{% for figure in figures %}
<figure>
<figcaption><b>{{ figure.title }}.</b> {{ figure.caption }}</figcaption>
<img src="{{ figure.uri }}" alt="{{ figure.title }}. {{ figure.caption }}">
</figure>
{% endfor %}
{% if numbers %}
<details>
<summary>The numbers behind the figures</summary>
{% for table in numbers %}
{{ plain(table, 'glance') }}
{% endfor %}
</details>
{% endif %}
</section>

{% if latents %}
<section id="latents">
<h2>Latents chosen</h2>
<p>Sparse autoencoders were trained on {{ latents | length }} {{ 'layer' if latents | length == 1 else 'layers' }}; the arms built on
them suppress latents like these. A score is a latent's mean activation on {{ forget }} minus that on what must stay: “semantic” takes
the weaker script of {{ forget }} and the loudest of controls, retained language and neighbours, so that above 0 a latent fires on
{{ forget }} in every script and on nothing else as much; “per script” takes the stronger script instead; “contrast” compares with the
average of the other languages.</p>
<div class="sites">
{% for site in latents %}
<article class="site">
<h3>Layer {{ site.layer }}</h3>
<p>{{ site.count }} latents by the {{ site.selector }} selector; {{ site.alive }} are alive.
{%- for name, value in site.quality.items() %} {{ 'Held out: ' if loop.first }}{{ name }} {{ value }}{{ ', ' if not loop.last else '.' }}{% endfor %}</p>
<div class="scroll">
<table class="numbers">
<thead><tr><th>Latent</th>{% for name in site.scores %}<th>{{ name | capitalize }}</th>{% endfor %}<th title="share of training tokens on which it fires">Fires on</th><th>Also taken by</th></tr></thead>
<tbody>
{% for row in site.rows %}<tr><th scope="row">{{ row.latent }}</th>{% for score in row.scores %}<td>{{ score }}</td>{% endfor %}<td>{{ row.frequency }}</td><td>{{ row.also }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% if site.count > site.rows | length %}<p class="more">and {{ site.count - site.rows | length }} more, in features.parquet.</p>{% endif %}
{% if site.tokens.rows %}
<details>
<summary>Tokens on which these latents are most active</summary>
<div class="scroll">
<table class="numbers">
<caption>Per language, best first, with the largest activation on each; nothing where the latent never fires. Train split.</caption>
<thead><tr><th>Latent</th>{% for code, name in site.tokens.header %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in site.tokens.rows %}<tr><th scope="row">{{ row.latent }}</th>{% for cell in row.cells %}<td dir="auto">{% for token, activation in cell %}<span title="{{ activation }}">{{ token }}</span>{{ ' · ' if not loop.last }}{% endfor %}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
</details>
{% endif %}
{% if site.transfer.rows %}
<div class="scroll">
<table class="numbers">
<caption>This autoencoder, trained on base, applied to every arm as it is. Rise of cross-entropy: when the layer’s output is replaced by the reconstruction, as a share of the arm’s own. Selected latents: their summed activation per token. Nothing is judged by it.</caption>
<thead><tr><th>Arm</th>{% for name in site.transfer.header %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in site.transfer.rows %}<tr><th scope="row">{{ dot(row.colour) }}{{ row.arm }}</th>{% for cell in row.cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
</article>
{% endfor %}
</div>
</section>
{% endif %}

<section id="limits">
<h2>Scope and limits</h2>
<dl class="limits">
{% for heading, text in limits %}<div><dt>{{ heading }}</dt><dd>{{ text }}</dd></div>
{% endfor %}
</dl>
</section>

<section id="reproduce">
<h2>How to reproduce</h2>
<p>In a clone of the project, with the config whose gate and data settings hash to <code>{{ decision.config_hash }}</code>:</p>
<pre>make run                                   # everything, from nothing
snakemake --cores 2 results/report.html    # what is missing or out of date
snakemake --cores 2 --forcerun report      # this page again, from the tables</pre>
<p>The verdict is a pure function of <code>results/metrics.parquet</code> and the config; every number here is in
<code>results/gate/tests.parquet</code>, <code>results/gate/decision.json</code> or <code>results/tables/</code>. The same code, config
and seeds give the same bytes on a CPU; what each stage cost in hours, GPU hours and memory, which never is the same, says
<code>make status</code>.</p>
<h3>Model and arms</h3>
<p>{{ model }}</p>
<div class="scroll">
<table class="numbers settings">
<thead><tr><th>Arm</th><th>Method</th><th>Parameters given (others: defaults)</th></tr></thead>
<tbody>
{% for arm in arms %}<tr><th scope="row">{{ arm.arm }}</th><td>{{ arm.method }}{% if arm.about %}: {{ arm.about }}{% endif %}</td><td>{% for key, value in arm.params | dictsort %}<code>{{ key }}: {{ value }}</code> {% else %}–{% endfor %}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
<h3>Margins</h3>
<p class="pins">{% for name, value in decision.margins | dictsort %}<code>{{ name }} {{ value }}</code> {% endfor %}</p>
<h3>Packages</h3>
<p class="pins">{% for name, version in pins %}<code>{{ name }}{{ ' ' + version if version }}</code> {% endfor %}</p>
</section>
</main>
<footer><p>Text in Devanagari is set in Noto Sans Devanagari (SIL Open Font License 1.1).</p></footer>
</body>
</html>
"""


def render(context: Mapping[str, Any], figures: Mapping[str, bytes], numbers: Sequence[Mapping[str, Any]]) -> str:
    """
    The page: ``context`` from ``report.compose``, PNG bytes per figure, and tables (caption, header, rows).

    Everything that a model or a user wrote is escaped. Raises jinja2.UndefinedError when the context lacks a value.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["tight"] = _tight
    style = STYLE.replace("FONT_URI", fonts.data_uri()).replace("FONT_RANGE", fonts.unicode_range())
    shown = [
        {"title": context["captions"][name][0], "caption": context["captions"][name][1], "uri": _uri(png)}
        for name, png in figures.items()
    ]
    template = environment.from_string(TEMPLATE)
    return template.render({**context, "figures": shown, "numbers": numbers, "style": Markup(style)})


def _tight(text: str) -> str:
    """Keeps ``p < 0.001`` and ``95 %`` on one line."""
    return re.sub(r"\bp ([<=]) (?=\d)", "p\u00a0\\1\u00a0", text).replace(" %", "\u00a0%")


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
