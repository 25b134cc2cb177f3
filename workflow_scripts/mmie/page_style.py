"""How the report looks: light and dark, on screens and on paper."""

# ruff: noqa: E501 (HTML and CSS)

STYLE = """\
@font-face {
  font-family: "MMIE Devanagari"; src: url("FONT_URI") format("woff"); unicode-range: FONT_RANGE;
}
:root {
  color-scheme: light dark;
  --paper: #fbfaf8; --card: #ffffff; --ink: #1f1f1f; --quiet: #666259; --line: #e2ded6; --soft: #f3f0ea; --link: #00588a;
  --pass: #00664c; --pass-soft: #e0f1ea; --fail: #a83200; --fail-soft: #fbe6dc; --unclear: #7a5b00; --unclear-soft: #faf0d0;
  --ring: #b2182b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #171716; --card: #201f1e; --ink: #e9e6e1; --quiet: #a39e94; --line: #3a3835; --soft: #2a2927; --link: #7cc4ee;
    --pass: #6fd3b0; --pass-soft: #17352c; --fail: #ff9a70; --fail-soft: #43231a; --unclear: #e8c65a; --unclear-soft: #3a3013;
    --ring: #ff7f7f;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink); font-size: 16px; line-height: 1.55;
  font-family: "MMIE Devanagari", system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans Bengali",
    "Noto Sans Gurmukhi", "Noto Naskh Arabic", "Nirmala UI", "Kohinoor Bangla", "Helvetica Neue", Arial, sans-serif;
}
header, main, footer { max-width: 1120px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 44px; }
.kicker { margin: 0; color: var(--quiet); font-size: 13px; letter-spacing: .06em; text-transform: uppercase; }
h1 { margin: 6px 0 4px; font-size: 38px; line-height: 1.15; letter-spacing: -.015em; }
h2 { margin: 64px 0 12px; font-size: 25px; line-height: 1.2; letter-spacing: -.01em; }
h3 { margin: 28px 0 6px; font-size: 18px; }
.facts { margin: 0; color: var(--quiet); }
.facts span { padding: 0 4px; }
nav { margin: 20px 0 0; padding: 9px 0; border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); font-size: 14.5px; }
nav a { margin-right: 20px; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
p { margin: 10px 0; }
section > p, .limits dd, .asks dd { max-width: 92ch; }
#lead { margin-top: 26px; }
#verdict h2 { margin-top: 36px; }
.headline { font-size: 20px; line-height: 1.4; font-weight: 600; }
.second { color: var(--quiet); margin-top: -4px; }
.dot { display: inline-block; width: .72em; height: .72em; border-radius: 50%; margin-right: .5em; }
.pill {
  display: inline-block; padding: 2px 10px; border-radius: 99px; font-size: 12.5px; font-weight: 700; letter-spacing: .02em;
  white-space: nowrap; border: 1px solid currentColor; vertical-align: .1em;
}
.pill.proceed { color: var(--pass); background: var(--pass-soft); }
.pill.stop { color: var(--fail); background: var(--fail-soft); }
.pill.cannot-certify { color: var(--unclear); background: var(--unclear-soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; }

.verdicts { width: 100%; margin: 18px 0 8px; font-size: 14px; border-collapse: separate; border-spacing: 0; }
.verdicts thead th { padding: 6px 10px; font-weight: 400; font-size: 13px; color: var(--quiet); vertical-align: bottom; line-height: 1.25; }
.verdicts thead b { display: block; color: var(--ink); }
.verdicts tbody th { padding: 13px 14px 13px 4px; vertical-align: top; font-size: 15.5px; white-space: nowrap; border-top: 1px solid var(--line); }
.verdicts td.verdict { padding: 12px 14px 6px 0; vertical-align: top; border-top: 1px solid var(--line); }
.also { display: block; margin-top: 4px; font-size: 12px; color: var(--quiet); white-space: nowrap; }
.cell {
  padding: 10px 6px 9px 10px; min-width: 102px; vertical-align: top; line-height: 1.3; font-size: 12.5px;
  border-top: 1px solid var(--line); border-left: 3px solid var(--paper); color: var(--quiet);
}
.cell b { font-size: 15px; color: var(--ink); }
.cell span { display: block; white-space: nowrap; }
.cell .symbol { display: inline-block; font-weight: 700; font-size: 15px; width: 1.25em; }
.cell.pass { background: var(--pass-soft); } .cell.pass .symbol { color: var(--pass); }
.cell.fail { background: var(--fail-soft); } .cell.fail .symbol { color: var(--fail); }
.cell.unclear { background: var(--unclear-soft); } .cell.unclear .symbol { color: var(--unclear); }
.cell.missing { background: var(--soft); }
.sentence { padding: 7px 0 15px; font-size: 14px; line-height: 1.45; }
.mark { display: inline-block; width: 1.5em; text-align: center; font-weight: 700; border-radius: 4px; }
.mark.pass { color: var(--pass); background: var(--pass-soft); }
.mark.fail { color: var(--fail); background: var(--fail-soft); }
.mark.unclear { color: var(--unclear); background: var(--unclear-soft); }
.mark.missing { color: var(--quiet); background: var(--soft); }
.legend, .assay { font-size: 14px; color: var(--quiet); max-width: none !important; }
.legend .mark:not(:first-child) { margin-left: 10px; }
.warn { color: var(--fail); }
.words { display: grid; grid-template-columns: repeat(auto-fit, minmax(270px, 1fr)); gap: 6px 26px; margin: 14px 0; font-size: 14px; }
.words dd { margin: 4px 0 0; color: var(--quiet); }

.asks { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 4px 30px; margin: 8px 0 12px; font-size: 15px; }
.asks div { display: flex; gap: 10px; }
.asks dt { font-weight: 700; color: var(--quiet); } .asks dd { margin: 0; }
.arm { margin: 26px 0 0; padding: 18px 22px 16px; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.arm h3 { margin-top: 0; display: flex; align-items: baseline; gap: 4px; }
.arm h3 .pill { margin-left: 8px; }
.about { margin: 0 0 8px; color: var(--quiet); }
.reasons { margin: 8px 0 14px; padding-left: 20px; font-size: 14.5px; }
.reasons li { margin: 3px 0; }
.numbers { font-size: 13px; line-height: 1.35; width: 100%; }
.numbers caption { text-align: left; color: var(--quiet); padding: 2px 0 6px; }
.numbers th, .numbers td { padding: 4px 10px 4px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
.numbers thead th { font-weight: 400; color: var(--quiet); white-space: nowrap; }
.numbers tbody th { font-weight: 400; }
.numbers td.unit { color: var(--quiet); white-space: nowrap; }
.numbers td.tight { white-space: nowrap; }
.numbers i { color: var(--quiet); font-style: normal; }
.parts .group th { padding-top: 12px; font-weight: 700; }
.glance td { white-space: nowrap; }
details { margin: 12px 0 2px; }
summary { cursor: pointer; color: var(--link); font-size: 14.5px; }

.chips { border: 0; margin: 0 0 10px; padding: 8px 0; display: flex; flex-wrap: wrap; gap: 8px; align-items: center; font-size: 14px; position: sticky; top: 0; background: var(--paper); z-index: 1; }
.chips legend { float: left; padding: 0 6px 0 0; color: var(--quiet); }
.chips label { padding: 3px 12px 3px 8px; border: 1px solid var(--line); border-radius: 99px; background: var(--card); cursor: pointer; display: flex; align-items: center; }
.chips label:has(input:not(:checked)) { opacity: .5; }
.chips input { margin: 0 7px 0 0; accent-color: var(--quiet); }
.sample { display: grid; grid-template-columns: 290px 1fr; gap: 24px; padding: 16px 0; border-top: 1px solid var(--line); }
.sample p { margin: 0; }
.prompt .model { font-weight: 500; margin: 6px 0; }
.meaning { font-size: 13.5px; line-height: 1.4; color: var(--quiet); }
.family { font-size: 12px; font-weight: 600; padding: 2px 8px; border-radius: 4px; background: var(--soft); color: var(--quiet); }
.family.forget { color: var(--ring); box-shadow: inset 0 0 0 1px currentColor; background: none; }
.answers { display: grid; grid-template-columns: repeat(auto-fill, minmax(235px, 1fr)); gap: 10px; align-items: stretch; }
.answer { padding: 8px 12px 10px; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.answer.les { border-color: var(--ring); box-shadow: inset 3px 0 0 var(--ring); }
.answer.arm-0 { background: var(--soft); }
.who { font-size: 13px; font-weight: 600; display: flex; align-items: center; }
.badge { margin-left: auto; padding-left: 8px; font-weight: 400; font-size: 12px; color: var(--quiet); white-space: nowrap; }
.badge i { display: inline-block; width: 9px; height: 9px; border-radius: 2px; margin-right: 5px; }
.model { unicode-bidi: isolate; overflow-wrap: anywhere; font-size: 14.5px; line-height: 1.5; }
.answer .model { margin-top: 4px; }

figure { margin: 26px 0 34px; }
figcaption { max-width: 100ch; margin-bottom: 10px; font-size: 15px; }
figure img { display: block; width: 100%; height: auto; padding: 14px; background: #fff; border: 1px solid var(--line); border-radius: 10px; }
.sites { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 26px; }
.site h3 { margin-top: 8px; } .site p { font-size: 14px; color: var(--quiet); }
.limits { margin: 0; } .limits div { margin: 14px 0; }
.limits dt { font-weight: 600; } .limits dd { margin: 2px 0 0; }
pre { padding: 14px 18px; background: var(--soft); border-radius: 8px; overflow-x: auto; font-size: 13.5px; line-height: 1.6; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { font-size: .88em; background: var(--soft); padding: 1px 5px; border-radius: 4px; }
.pins { max-width: none !important; line-height: 2; }
footer { margin-top: 70px; padding-bottom: 40px; color: var(--quiet); font-size: 13px; }

@media (max-width: 760px) {
  h1 { font-size: 30px; }
  .sample { grid-template-columns: 1fr; gap: 10px; }
  .asks, .sites { grid-template-columns: 1fr; }
  .sentence div { max-width: calc(100vw - 210px); }
}
@media print {
  :root {
    color-scheme: light;
    --paper: #fff; --card: #fff; --ink: #000; --quiet: #555; --line: #ccc; --soft: #f3f3f3; --link: #000;
    --pass: #00664c; --pass-soft: #e0f1ea; --fail: #a83200; --fail-soft: #fbe6dc; --unclear: #7a5b00; --unclear-soft: #faf0d0;
    --ring: #b2182b;
  }
  @page { size: A4; margin: 14mm 12mm; }
  body { font-size: 10.5pt; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  header, main, footer { max-width: none; padding: 0; }
  nav, .chips { display: none; }
  h2, h3, figcaption { break-after: avoid; }
  .sample, figure, tr, .limits div { break-inside: avoid; }
  .scroll { overflow: visible; }
  details::details-content { content-visibility: visible; block-size: auto; }
  .verdicts, .numbers { font-size: 8pt; }
  .cell { min-width: 0; padding: 6px 4px; font-size: 7.5pt; } .cell b { font-size: 9pt; } .cell span { white-space: normal; }
  .verdicts tbody th { font-size: 10pt; padding-right: 6px; } .verdicts td.verdict { padding-right: 6px; }
  .pill { font-size: 7.5pt; padding: 1px 6px; } .also { white-space: normal; }
  .numbers th, .numbers td { padding-right: 6px; } .numbers td.unit, .numbers td.tight { white-space: normal; }
  .sample { grid-template-columns: 30% 1fr; gap: 12px; } .answers { grid-template-columns: repeat(3, 1fr); }
}
"""
