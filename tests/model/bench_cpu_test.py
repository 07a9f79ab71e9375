"""rung bench --cpu: the list of kernels beside what the processor is said to have."""
import json
import re

from cli_kit import command, good, refused
from cli_test import DIGITS, keys_in_manual


def test_bench_cpu():
    """The list of kernels: what runs is allowed, and each table has one row for each layer."""
    for level in (None, 'ref', 'avx2'):
        result = command('bench', '--cpu', '--json', env={'RUNG_CPU': level} if level else {})
        if result.returncode == 1 and level == 'avx2':
            continue  # this machine has no such level
        got = json.loads(result.stdout)
        assert set(got) == keys_in_manual('bench-cpu') and got['level'] == level
        allowed = {f['name'] for f in got['features'] if f['allowed']}
        machine = {f['name'] for f in got['features'] if f['machine']}
        assert allowed == (machine if level is None else machine & {level})
        layers = []
        for table in got['tables']:
            for kernel in table['kernels']:
                needs = set(kernel['needs'])
                assert (kernel['state'] == 'missing') == (not needs <= machine)
                assert (kernel['state'] in ('chosen', 'available')) == (needs <= allowed)
                layers += kernel.get('layers', [])
            chosen = [k for k in table['kernels'] if k['state'] == 'chosen']
            assert len(chosen) == 1 or table['name'] == 'conv_u8s8'
        assert 'depthwise 3x3' in layers and len(layers) == len(set(layers))
        assert level != 'ref' or {k['state'] for k in got['tables'][0]['kernels'][1:]} <= {
            'forbidden', 'missing'}
    text = good('bench', '--cpu', env={'RUNG_CPU': 'ref'}).stdout
    assert re.search(r'conv_u8s8 +ref +- +chosen: first 3x3, 3x3,', text)
    refused('bench', '--cpu', DIGITS, status=2, says='--cpu takes no model')
    refused('inspect', '--cpu', DIGITS, status=2, says='--cpu is not an option')
