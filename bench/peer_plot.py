"""An SVG of peers.py's records: for each network how many times faster rung's int8 is than the best
int8 peer. python bench/peer_plot.py RECORDS.json OUT.svg"""
import json
import math
import pathlib
import sys

LEFT, WIDTH, LINE, TOP = 330, 420, 22, 40


def bar(i, label, ratio, text, most):
    y, length = TOP + i * LINE, WIDTH * ratio / most
    colour = '#2a7' if ratio >= 1 else '#c33'
    return (f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{label}</text>'
            f'<rect x="{LEFT}" y="{y + 3}" width="{length:.1f}" height="{LINE - 7}" '
            f'fill="{colour}"/><text x="{LEFT + length + 6:.1f}" y="{y + 14}">{text}</text>')


def svg(records):
    rows = [r for r in records if r.get('best_peer')]
    faster = [1 / r['ratio_to_best'] for r in rows]
    most = max(faster) * 1.02
    mean = math.exp(sum(map(math.log, faster)) / len(faster))
    bars = [bar(i, f'{pathlib.Path(r["model"]).stem}, {r["threads"]} thr., batch {r["batch"]}', f,
                f'{f:.2f} ({r["ms"]["rung int8"]:.3f} ms; {r["best_peer"]})', most)
            for i, (r, f) in enumerate(zip(rows, faster))]
    one, bottom = LEFT + WIDTH / most, TOP + len(rows) * LINE
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 260}" '
            f'height="{bottom + 12}" font-family="sans-serif" font-size="12">'
            f'<text x="8" y="20">int8: times faster than the best peer (geometric mean '
            f'{mean:.2f})</text>' + ''.join(bars) +
            f'<line x1="{one:.1f}" x2="{one:.1f}" y1="{TOP}" y2="{bottom}" stroke="#333"/></svg>\n')


if __name__ == '__main__':
    pathlib.Path(sys.argv[2]).write_text(svg(json.loads(pathlib.Path(sys.argv[1]).read_text())))
