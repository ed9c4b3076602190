"""How the report looks: one style sheet, no script, nothing from elsewhere."""

STYLE = """
:root{--ink:#111827;--soft:#4b5563;--line:#e5e7eb;--good:#0f6b3c;--bad:#b3261e;--paper:#fff}
*{box-sizing:border-box}
body{margin:0;background:#f3f4f6;color:var(--ink);font:16px/1.5 system-ui,"Segoe UI",sans-serif}
main{max-width:60rem;margin:0 auto;padding:1rem}
header,section{background:var(--paper);border-radius:10px;padding:1.25rem 1.5rem;margin:0 0 1rem}
header{color:#fff}header.good{background:var(--good)}header.bad{background:var(--bad)}
header h1{margin:.1rem 0 .4rem;font-size:2rem}header p{margin:.2rem 0}
header ul{margin:.6rem 0 0;padding-left:1.2rem}.kicker{opacity:.85;font-size:.9rem}
h2{margin:0 0 .6rem;font-size:1.25rem}section ul{margin:0;padding-left:1.2rem}
li{margin:.25rem 0}small,figcaption{color:var(--soft)}figcaption{font-size:.9rem}
figure{margin:.5rem 0 1rem}svg{max-width:100%;height:auto;display:block}
code{font-size:.9em;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;font-size:.93rem}
th,td{padding:.35rem .5rem;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600}.group th{padding-top:1rem;border-bottom:2px solid var(--line)}
td.n,th+th{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.gates td{padding:.6rem .5rem}.mark{font-weight:600;white-space:nowrap}
.gates .good .mark,td.good{color:var(--good)}.gates .bad .mark,td.bad{color:var(--bad)}
.idle{color:var(--soft)}.wide{overflow-x:auto}summary{cursor:pointer;font-weight:600}
@media(max-width:40rem){header,section{padding:1rem}.gates small{display:none}}
@media print{body{background:#fff}section,header{break-inside:avoid}}
"""
