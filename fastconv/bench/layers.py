"""The layers that are measured unless others are asked for: groups of labels and one-line names. Data only.

The layers of the networks from LeNet-5 to ResNet with the batch sizes that fit a processor, and sizes that
belong to no network, where a library that was tuned to the famous ones would show it.
"""

GROUPS = {
    "lenet": {
        "lenet1": "conv2d:n64c1h32w32k6r5s5_st1p0d1g1_f32_bias",
        "lenet2": "conv2d:n64c6h14w14k16r5s5_st1p0d1g1_f32_bias",
        "lenet3": "conv2d:n64c16h5w5k120r5s5_st1p0d1g1_f32_bias",
    },
    "alexnet": {
        "alex1": "conv2d:n8c3h227w227k96r11s11_st4p0d1g1_f32_bias",
        "alex2": "conv2d:n8c96h27w27k256r5s5_st1p2d1g1_f32_bias",
        "alex3": "conv2d:n8c256h13w13k384r3s3_st1p1d1g1_f32_bias",
        "alex2_valid": "conv2d:n8c96h27w27k256r5s5_st1p0d1g1_f32_bias",
        "alex3_valid": "conv2d:n8c256h11w11k384r3s3_st1p0d1g1_f32_bias",
        "alex4_valid": "conv2d:n8c384h9w9k384r3s3_st1p0d1g1_f32_bias",
        "alex5_valid": "conv2d:n8c384h7w7k256r3s3_st1p0d1g1_f32_bias",
    },
    "zfnet": {
        "zf1": "conv2d:n8c3h224w224k96r7s7_st2p1d1g1_f32_bias",
        "zf2": "conv2d:n8c96h55w55k256r5s5_st2p0d1g1_f32_bias",
        "zf3": "conv2d:n8c256h13w13k512r3s3_st1p1d1g1_f32_bias",
        "zf4": "conv2d:n8c512h13w13k1024r3s3_st1p1d1g1_f32_bias",
        "zf5": "conv2d:n8c1024h13w13k512r3s3_st1p1d1g1_f32_bias",
    },
    "vgg": {
        "vgg1_1": "conv2d:n4c3h224w224k64r3s3_st1p1d1g1_f32_bias",
        "vgg1_2": "conv2d:n4c64h224w224k64r3s3_st1p1d1g1_f32_bias",
        "vgg2_1": "conv2d:n4c64h112w112k128r3s3_st1p1d1g1_f32_bias",
        "vgg2_2": "conv2d:n4c128h112w112k128r3s3_st1p1d1g1_f32_bias",
        "vgg3_1": "conv2d:n4c128h56w56k256r3s3_st1p1d1g1_f32_bias",
        "vgg3_2": "conv2d:n4c256h56w56k256r3s3_st1p1d1g1_f32_bias",
        "vgg4_1": "conv2d:n4c256h28w28k512r3s3_st1p1d1g1_f32_bias",
        "vgg4_2": "conv2d:n4c512h28w28k512r3s3_st1p1d1g1_f32_bias",
        "vgg5": "conv2d:n4c512h14w14k512r3s3_st1p1d1g1_f32_bias",
    },
    "googlenet": {
        "goog_5x5": "conv2d:n8c32h28w28k96r5s5_st1p2d1g1_f32_bias",
        "goog2_1x1": "conv2d:n8c64h56w56k64r1s1_st1p0d1g1_f32_bias",
        "goog2_3x3": "conv2d:n8c64h56w56k192r3s3_st1p1d1g1_f32_bias",
        "goog3a_1x1": "conv2d:n8c192h28w28k64r1s1_st1p0d1g1_f32_bias",
        "goog3a_3x3": "conv2d:n8c96h28w28k128r3s3_st1p1d1g1_f32_bias",
        "goog3a_5x5": "conv2d:n8c16h28w28k32r5s5_st1p2d1g1_f32_bias",
        "goog4e_3x3": "conv2d:n8c160h14w14k320r3s3_st1p1d1g1_f32_bias",
        "goog4e_5x5": "conv2d:n8c32h14w14k128r5s5_st1p2d1g1_f32_bias",
        "goog5b_1x1": "conv2d:n8c832h7w7k384r1s1_st1p0d1g1_f32_bias",
    },
    "resnet": {
        "res1": "conv2d:n8c3h224w224k64r7s7_st2p3d1g1_f32",
        "res_1x1a": "conv2d:n8c64h56w56k256r1s1_st1p0d1g1_f32",
        "res_1x1b": "conv2d:n8c256h56w56k64r1s1_st1p0d1g1_f32",
        "res2_3x3": "conv2d:n8c64h56w56k64r3s3_st1p1d1g1_f32",
        "res_1x1s2": "conv2d:n8c256h56w56k512r1s1_st2p0d1g1_f32",
        "res3_3x3s2": "conv2d:n8c128h56w56k128r3s3_st2p1d1g1_f32",
        "res3x3_2": "conv2d:n8c128h28w28k128r3s3_st1p1d1g1_f32",
        "res4_1x1": "conv2d:n8c1024h14w14k256r1s1_st1p0d1g1_f32",
        "res4_3x3": "conv2d:n8c256h14w14k256r3s3_st1p1d1g1_f32",
        "res5_1x1s2": "conv2d:n8c1024h14w14k2048r1s1_st2p0d1g1_f32",
        "res5_3x3": "conv2d:n8c512h7w7k512r3s3_st1p1d1g1_f32",
        "res5_1x1": "conv2d:n8c512h7w7k2048r1s1_st1p0d1g1_f32",
    },
    "odd": {
        "odd_channels": "conv2d:n8c37h41w43k53r3s3_st1p1d1g1_f32_bias",
        "row_1x7": "conv2d:n8c128h17w17k128r1s7_st1p0x3d1g1_f32",
        "column_7x1": "conv2d:n8c128h17w17k128r7s1_st1p3x0d1g1_f32",
        "dilated": "conv2d:n8c64h33w33k64r3s3_st1p2d2g1_f32",
        "grouped": "conv2d:n8c128h28w28k128r3s3_st1p1d1g32_f32",
        "depthwise": "conv2d:n8c96h56w56k96r3s3_st1p1d1g96_f32",
        "depthwise_s2": "conv2d:n8c144h56w56k144r3s3_st2p1d1g144_f32",
        "depthwise_7x7": "conv2d:n8c96h56w56k96r7s7_st1p3d1g96_f32",
        "patch_4x4s4": "conv2d:n8c3h224w224k96r4s4_st4p0d1g1_f32_bias",
        "batch1_3x3": "conv2d:n1c64h56w56k64r3s3_st1p1d1g1_f32",
        "batch1_1x1": "conv2d:n1c256h14w14k1024r1s1_st1p0d1g1_f32",
        "double": "conv2d:n2c64h28w28k64r3s3_st1p1d1g1_f64",
        "volume": "conv3d:n1c64d16h28w28k64t3r3s3_st1p1d1g1_f32",
        "volume_first": "conv3d:n1c3d16h112w112k64t3r3s3_st1p1d1g1_f32_bias",
        "signal": "conv1d:n8c16w65536k32s9_st1p4d1g1_f32",
        "wavenet": "conv1d:n4c64w16384k128s2_st1p512-0d512g1_f32",
        "generator": "conv_transpose2d:n16c512h4w4k256r4s4_st2p1d1g1_f32",
        "upsample": "conv_transpose2d:n4c128h28w28k64r2s2_st2p0d1g1_f32_bias",
    },
    "pools": {
        "pool_lenet": "max_pool2d:n64c6h28w28r2s2_st2p0d1_f32",
        "pool_alex": "max_pool2d:n8c96h55w55r3s3_st2p0d1_f32",
        "pool_vgg1": "max_pool2d:n4c64h224w224r2s2_st2p0d1_f32",
        "pool_vgg3": "max_pool2d:n8c256h56w56r2s2_st2p0d1_f32",
        "pool_res": "max_pool2d:n8c64h112w112r3s3_st2p1d1_f32",
        "pool_inception": "max_pool2d:n8c192h28w28r3s3_st1p1d1_f32",
        "average": "avg_pool2d:n8c256h56w56r2s2_st2p0d1_f32",
        "average_3x3": "avg_pool2d:n8c192h28w28r3s3_st1p1d1_f32",
        "average_global": "adaptive_avg_pool2d:n8c2048h7w7_o1x1_f32",
    },
    "activations": {
        "relu": "relu:8x64x112x112_f32",
        "leaky_relu": "leaky_relu:8x64x56x56_f32",
        "elu": "elu:8x64x56x56_f32",
        "sigmoid": "sigmoid:8x64x56x56_f32",
        "tanh": "tanh:8x64x56x56_f32",
        "softmax": "softmax:256x1000_f32",
        "log_softmax": "log_softmax:256x1000_f32",
    },
    "losses": {
        "cross_entropy": "softmax_cross_entropy:256x1000_f32",
        "cross_entropy_10": "softmax_cross_entropy:64x10_f32",
        "binary_cross_entropy": "sigmoid_cross_entropy:256x1000_f32",
        "squared_error": "squared_error:256x1000_f32",
        "hinge": "hinge:256x1000_f32",
    },
    "norms": {
        "batch_norm": "batch_norm:8x64x56x56_f32",
        "batch_norm_small": "batch_norm:8x512x7x7_f32",
        "response_norm": "local_response_norm:8x96x55x55_f32",
    },
    "linear": {
        "linear_lenet": "linear:64x400x120_f32",
        "linear_alex": "linear:8x9216x4096_f32",
        "linear_vgg": "linear:4x25088x4096_f32",
        "linear_res": "linear:256x2048x1000_f32",
    },
    "small": {
        "tiny": "conv2d:n1c1h8w8k1r3s3_st1p0d1g1_f32",
        "small": "conv2d:n1c16h8w8k16r3s3_st1p1d1g1_f32_bias",
        "small_pool": "max_pool2d:n1c16h8w8r2s2_st2p0d1_f32",
        "small_relu": "relu:1x16x8x8_f32",
        "small_linear": "linear:1x16x16_f32",
    },
}

CONVOLUTIONS = ("lenet", "alexnet", "zfnet", "vgg", "googlenet", "resnet")
OTHERS = ("pools", "activations", "losses", "norms", "linear")

# The twenty layers that the design was measured on before the first kernel was written.
CORE = (
    "lenet1 lenet2 alex1 alex2 alex3 zf1 vgg1_1 vgg1_2 vgg3_2 vgg4_2 vgg5 goog_5x5 res1 res_1x1a res_1x1b"
    " res2_3x3 res3x3_2 res5_3x3 res5_1x1 res_1x1s2"
).split()
