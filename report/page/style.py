"""How a page looks: one column on a phone, light or dark as the reader's system is."""

STYLE = """\
:root{--paper:#fff;--ink:#1b1f24;--quiet:#5f6b7a;--line:#d9dee5;--tint:#f3f5f8;--accent:#0b63c5;
--bad:#c2391c;--good:#1e7d3c;
--c0:#0b63c5;--c1:#d1570a;--c2:#1e7d3c;--c3:#9c2fb0;--c4:#a88500;--c5:#0e8c8c;--c6:#c2185b;--c7:#6b7280}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e6e9ed;--quiet:#9aa5b1;--line:#333a43;
--tint:#1e2329;
--accent:#6cb0ff;--bad:#ff8b6b;--good:#6fd08c;--c0:#6cb0ff;--c1:#ffa05c;--c2:#6fd08c;--c3:#d98be8;
--c4:#e0c34a;--c5:#5fd3d3;
--c6:#ff7fae;--c7:#a3abb5}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif;
overflow-wrap:anywhere}
main,header,nav,footer{max-width:1320px;margin:0 auto;padding:0 16px}
header{padding-top:20px}h1{font-size:1.5rem;margin:0 0 4px;line-height:1.25}
h2{font-size:1.2rem;margin:36px 0 8px;padding-top:12px;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:20px 0 6px}p{margin:6px 0;max-width:80ch}
nav{position:sticky;top:0;background:var(--paper);padding-top:8px;padding-bottom:8px;font-size:.875rem;
z-index:2;
overflow-x:auto;white-space:nowrap}
nav a{margin-right:14px}a{color:var(--accent);text-decoration:none}
.quiet{color:var(--quiet);font-size:.875rem}
.note{border-left:4px solid var(--bad);padding:4px 12px;background:var(--tint)}
.big{display:flex;flex-wrap:wrap;gap:12px;margin:12px 0}
.big div{background:var(--tint);border-radius:8px;padding:10px 16px}
.big strong{display:block;font-size:1.6rem;line-height:1.2}.big span{color:var(--quiet);font-size:.8125rem}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums;overflow-wrap:normal}
caption{text-align:left;color:var(--quiet);padding:4px 0}
th,td{padding:4px 10px 4px 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
td:first-child{min-width:6rem;max-width:16rem;overflow-wrap:break-word}
td.words{min-width:7rem;max-width:28rem;overflow-wrap:break-word}
th{font-weight:600;color:var(--quiet);white-space:nowrap}.number{text-align:right;white-space:nowrap}
.bar{position:relative;width:160px;height:12px;margin-top:5px;background:var(--tint)}
.bar i{position:absolute;left:0;top:0;bottom:0;background:var(--accent);opacity:.75}
.bar b{position:absolute;top:5px;height:2px;background:var(--ink)}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,360px),1fr));gap:16px}
figure{margin:0}figcaption{font-size:.875rem;margin:4px 0}
svg{width:100%;height:auto;display:block}svg text{font-size:12px;fill:var(--quiet)}
.grid{stroke:var(--line);stroke-width:1}.curve{fill:none;stroke-width:2;stroke-linejoin:round}
.entry{display:inline-block}
.key{display:inline-block;width:12px;height:12px;border-radius:3px;margin:0 5px 0 12px;vertical-align:-1px}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,380px),1fr));gap:18px}
.pair{display:flex;gap:4px}.pair div{flex:1 1 0;min-width:0}.pair span{font-size:.75rem;color:var(--quiet)}
.pair img{width:100%;display:block;border-radius:4px}
.pictures.wide{grid-template-columns:repeat(auto-fill,minmax(min(100%,560px),1fr))}
.wide .pair{flex-wrap:wrap}.wide .pair div{flex-basis:240px}
@media(max-width:520px){.bar{width:64px}td.words{min-width:5rem}}
.file{font-size:.75rem;color:var(--quiet)}
.cells td,.cells th{padding:3px 6px;text-align:right;border:1px solid var(--paper)}
.cells th:first-child{text-align:left}
.bad{color:var(--bad)}.good{color:var(--good)}
pre{background:var(--tint);padding:10px 12px;border-radius:6px;overflow-x:auto;font-size:.8125rem;
line-height:1.45;margin:6px 0}
details{margin:8px 0}summary{cursor:pointer;color:var(--accent)}footer{padding:24px 16px 48px}
"""
