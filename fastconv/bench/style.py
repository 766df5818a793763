"""The style sheet of the page (html.py), for light and dark screens."""

STYLE = """
:root { --page: #fff; --ink: #1d2733; --faint: #c3ccd6; --grid: #e6eaef; --good: #d9f2e3; --bad: #fbdcd9;
  --behind: #b3261e; --c0: #d55e00; --c1: #0072b2; --c2: #56b4e9; --c3: #009e73; --c4: #cc79a7;
  --c5: #8a6d00; --c6: #6a51a3; --c7: #7f7f7f; --c8: #a6761d; --c9: #1b9e77; }
@media (prefers-color-scheme: dark) { :root { --page: #14191f; --ink: #e3e8ee; --faint: #4b5663;
  --grid: #2a323c; --good: #174a2e; --bad: #5a2320; --behind: #ffb4a9; --c0: #ff8c42; --c1: #5aa9e6;
  --c2: #8fd3ff; --c3: #3fd0a3; --c4: #e6a3c8; --c5: #d9b93b; --c6: #a996e0; --c7: #aaa; --c8: #d6a95c;
  --c9: #5fd3ae; } }
body { background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; }
h2 { margin-top: 2.6rem; border-bottom: 1px solid var(--grid); }
h3 { margin-bottom: .3rem; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .18rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--grid); }
th { vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
td.good { background: var(--good); }
td.bad { background: var(--bad); }
td small { opacity: .8; }
td small.behind { color: var(--behind); opacity: 1; }
.headline { font-size: .95rem; }
.headline th, .headline td:first-child { white-space: normal; }
.headline th:not(:first-child) { max-width: 8.5rem; }
.wide { overflow-x: auto; }
svg { max-width: 100%; min-width: 34rem; height: auto; }
svg .tick { font-size: 11px; fill: var(--ink); }
svg .axis { font-size: 12px; font-weight: 600; fill: var(--ink); }
svg .limit { font-size: 12px; font-weight: 600; fill: var(--ink); paint-order: stroke; stroke: var(--page);
  stroke-width: 4px; stroke-linejoin: round; }
.legend span { margin-right: 1.1rem; white-space: nowrap; }
.legend i { display: inline-block; width: .75rem; height: .75rem; border-radius: 50%; margin-right: .35rem; }
code { font-size: .85em; overflow-wrap: anywhere; }
details { margin: .6rem 0; }
summary { cursor: pointer; font-weight: 600; }
dt { font-weight: 600; }
@media (max-width: 40rem) { body { margin: 1rem auto; } th, td { padding: .18rem .4rem; } }
"""
