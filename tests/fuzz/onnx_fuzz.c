/* Any bytes: refused with a sentence, or a graph that is valid and survives the round trip. */
#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"
#include "onnx_make.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    rung_error err = { "" };
    graph *g = NULL;
    const rung_status st = onnx_read(data, size, NULL, &g, &err);
    const char *broken = NULL;
    if (st == RUNG_OK)
        broken = what_breaks(g, &err);
    else if (g || !err.message[0])
        broken = "a failure without a sentence";
    graph_free(g);
    if (broken) {
        fprintf(stderr, "%s: %s\n", broken, err.message);
        abort();
    }
    return 0;
}
