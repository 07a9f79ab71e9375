/* The qconfigs that go by a name.
 *
 * x86, fbgemm, onednn, qnnpack: get_default_qconfig, torch/ao/quantization/qconfig.py of PyTorch 2.
 * All observe activations with HistogramObserver (quint8, per tensor, affine), which searches the
 * range of least squared error, as RUNG_RANGE_MSE does; x86 and fbgemm with reduce_range = True,
 * onednn and qnnpack without. Weights: default_per_channel_weight_observer (qint8, symmetric), for
 * qnnpack default_weight_observer (per tensor). One difference: PyTorch's weights use the code -128
 * too (scale = largest / 127.5); rung's are in [-127, 127].
 *
 * ort: onnxruntime.quantization.quantize_static of ONNX Runtime 1.2x as it stands there (QDQ, QInt8
 * activations and weights, CalibrationMethod.MinMax), with per_channel = True.
 *
 * tflite: "LiteRT 8-bit quantization specification" (ai.google.dev/edge/litert/models/
 * quantization_spec): int8 activations with zero points, weights in [-127, 127] per axis with zero
 * point 0, the outputs in fixed_tflite, and the operators in ties_tflite, whose "input and outputs
 * must all have same scale/zero_point" (those that only move values have it in every qconfig). */
#include "quant/qconfig_parts.h"

#include <stdio.h>
#include <string.h>

#define COMMON .act_bits = 8, .weight_bits = 8, .percentile = 99.99

/* Ends for which scale and zero point come out exactly: 255 steps of 1/256, 1/128 and 1/16. */
static const fixed_range fixed_tflite[] = {
    { "Sigmoid", 0, 255.0f / 256 },            /* LOGISTIC: 1/256, -128 */
    { "Softmax", 0, 255.0f / 256 },            /* 1/256, -128 */
    { "LogSoftmax", -255.0f / 16, 0 },         /* 16/256, 127 */
    { "Tanh", -1, 127.0f / 128 },              /* 1/128, 0 */
    { "LpNormalization", -1, 127.0f / 128 },   /* L2_NORMALIZATION: 1/128, 0 */
    { NULL, 0, 0 },
};
static const char *const ties_tflite[] = { "AveragePool", "Concat", "Max", "Min", "Resize", NULL };

/* PyTorch's get_default_qat_qconfig: FusedMovingAvgObsFakeQuantize, moving averages of minimum and
 * maximum with factor 0.01; weights qint8 in [-128, 127], symmetric. x86 and fbgemm: activations
 * with reduce_range, weights per channel; qnnpack: neither. */
static const qsettings train_x86 = { .act_type = RUNG_U8, .range = RUNG_RANGE_EMA,
                                     .reduce_range = true, .full_weights = true, COMMON };
static const qsettings train_qnnpack = { .act_type = RUNG_U8, .range = RUNG_RANGE_EMA,
                                         .per_tensor = true, .full_weights = true, COMMON };

static const preset presets[] = {
    { "default", { .act_type = RUNG_U8, .range = RUNG_RANGE_MSE, COMMON }, NULL, NULL, NULL },
    { "x86", { .act_type = RUNG_U8, .range = RUNG_RANGE_MSE, .reduce_range = true, COMMON },
      NULL, NULL, &train_x86 },
    { "fbgemm", { .act_type = RUNG_U8, .range = RUNG_RANGE_MSE, .reduce_range = true, COMMON },
      NULL, NULL, &train_x86 },
    { "onednn", { .act_type = RUNG_U8, .range = RUNG_RANGE_MSE, COMMON }, NULL, NULL, NULL },
    { "qnnpack", { .act_type = RUNG_U8, .range = RUNG_RANGE_MSE, .per_tensor = true, COMMON },
      NULL, NULL, &train_qnnpack },
    { "ort", { .act_type = RUNG_I8, .range = RUNG_RANGE_MINMAX, COMMON }, NULL, NULL, NULL },
    { "tflite", { .act_type = RUNG_I8, .range = RUNG_RANGE_MINMAX, COMMON }, fixed_tflite,
      ties_tflite, NULL },
};
enum { N_PRESETS = sizeof presets / sizeof *presets };

const preset *preset_find(const char *name)
{
    for (int i = 0; i < N_PRESETS; i++)
        if (strcmp(presets[i].name, name) == 0)
            return &presets[i];
    return NULL;
}

const char *preset_names(char *buf, size_t size)
{
    size_t at = 0;
    buf[0] = '\0';
    for (int i = 0; i < N_PRESETS && at < size; i++)
        at += (size_t)snprintf(buf + at, size - at, "%s%s", i ? ", " : "", presets[i].name);
    return buf;
}
