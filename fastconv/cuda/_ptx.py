"""Device operations for generated kernels, as numba intrinsics that emit PTX or LLVM. One of the two
modules that import numba.

A kernel text calls operations by name. Most have one meaning and are listed in `TABLE`; the others belong
to a *family* that `operation(family, *arguments)` instantiates for a tile size or a dtype, such as
``("wgmma", 128, "bf16", "ss")``. The NumPy emulator in ``tests/emulator`` implements the same names and
families.

Letters: r = uint32, l = uint64 (global addresses and descriptors), h = uint16, f = float32. Shared
addresses are uint32. Predicates are uint32, 0 or 1, because divergent branches are not allowed in a kernel
text.
"""

from llvmlite import ir
from numba import types
from numba.cuda.extending import intrinsic

I32, I64, F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
LLVM = {"r": I32, "l": I64, "h": ir.IntType(16), "f": F32}
NUMBA = {"r": types.uint32, "l": types.uint64, "h": types.uint16, "f": types.float32}


def _intrinsic(name, count, make):
    """A numba intrinsic of `count` arguments; make(argument types) -> (signature, codegen).

    Numba reads the arity from the text.
    """
    names = "".join(f", a{i}" for i in range(count))
    scope = {"make": make}
    exec(f"def {name}(typing_context{names}):\n    return make(({names[2:]}{',' if count else ''}))", scope)
    return intrinsic(scope[name])


def _assembly(name, template, results="", operands="", pure=False):
    """One asm statement. In the template results are numbered first, then operands.

    Statements that touch memory or synchronise are never moved or merged (`pure` is False).
    """
    constraints = [f"={c}" for c in results] + list(operands) + ([] if pure else ["~{memory}"])
    result = [LLVM[c] for c in results]
    if len(result) > 1:
        returned, llvm = types.UniTuple(NUMBA[results[0]], len(result)), ir.LiteralStructType(result)
    else:
        returned, llvm = (NUMBA[results], result[0]) if result else (types.void, ir.VoidType())
    signature = returned(*(NUMBA[c] for c in operands))

    def make(_):
        def codegen(context, builder, sig, arguments):
            kind = ir.FunctionType(llvm, [LLVM[c] for c in operands])
            value = builder.call(
                ir.InlineAsm(kind, template, ",".join(constraints), side_effect=not pure), arguments
            )
            if not result:
                return context.get_dummy_value()
            if len(result) == 1:
                return value
            parts = [builder.extract_value(value, i) for i in range(len(result))]
            return context.make_tuple(builder, sig.return_type, parts)

        return signature, codegen

    return _intrinsic(name, len(operands), make)


def _predicated(body, number, registers=""):
    """`body` under the predicate p = operand `number`, with a block-local register declaration."""
    return "{ .reg .pred p; " + registers + f" setp.ne.u32 p, ${number}, 0; " + body + " }"


# -- plain values --------------------------------------------------------------------------------------------


def _shared_address(arguments):
    """uint32 shared address of the first byte of a shared array."""
    (array,) = arguments
    signature = types.uint32(array)

    def codegen(context, builder, sig, values):
        data = context.make_array(sig.args[0])(context, builder, values[0]).data
        opaque = getattr(data.type, "is_opaque", False)
        shared = ir.PointerType(addrspace=3) if opaque else ir.PointerType(data.type.pointee, 3)
        return builder.ptrtoint(builder.addrspacecast(data, shared), I32)

    return signature, codegen


def _comparison(name, predicate, returned):
    """name(a, b): unsigned comparison as a predicate (uint32), or as a branch condition (bool)."""
    signature = returned(types.uint32, types.uint32)

    def make(_):
        def codegen(context, builder, sig, values):
            bit = builder.icmp_unsigned(predicate, *values)
            return bit if returned is types.boolean else builder.zext(bit, I32)

        return signature, codegen

    return _intrinsic(name, 2, make)


def _bitcast(name, source, target):
    signature = NUMBA[target](NUMBA[source])

    def make(_):
        return signature, lambda context, builder, sig, values: builder.bitcast(values[0], LLVM[target])

    return _intrinsic(name, 1, make)


def _tuple_operation(name, width, count, compute, letter="f"):
    """f(tuple of `width`, then `count` tuples or scalars given by types) built value by value in LLVM."""

    def make(arguments):
        tuples = types.UniTuple(NUMBA[letter], width)
        signature = tuples(*arguments)

        def codegen(context, builder, sig, values):
            result = ir.Constant(context.get_value_type(tuples), ir.Undefined)
            for i, value in enumerate(compute(builder, values)):
                result = builder.insert_value(result, value, i)
            return result

        return signature, codegen

    return _intrinsic(name, count, make)


def zeros(n):
    """() -> n accumulators of 0.0."""
    return _tuple_operation("zeros", n, 0, lambda builder, _: [F32(0.0)] * n)


def accumulate(n):
    """(sum, part) -> sum + part, elementwise over n accumulators."""

    def compute(builder, values):
        parts = [[builder.extract_value(v, i) for v in values] for i in range(n)]
        return [builder.fadd(*pair) for pair in parts]

    return _tuple_operation("accumulate", n, 2, compute)


def outer_sum(depth, pitch):
    """(acc, a, b) -> acc[8 i + j] + sum over k < depth of x[k, i] * y[k, j], by fused multiply-adds.

    x[k] are the values at shared addresses a + k * pitch, four there and four 256 bytes on; y likewise from
    b. One operation, since unrolled in the text it would take numba seconds to compile.
    """

    def compute(builder, values):
        acc, a, b = values
        acc = [builder.extract_value(acc, i) for i in range(64)]
        vector = ir.VectorType(F32, 4)

        def eight(address, k):
            for distance in (0, 256):
                at = builder.add(address, I32(k * pitch + distance))
                loaded = builder.load(builder.inttoptr(at, ir.PointerType(vector, 3)), align=16)
                yield from (builder.extract_element(loaded, I32(i)) for i in range(4))

        for k in range(depth):
            x, y = list(eight(a, k)), list(eight(b, k))
            acc = [builder.fma(x[i], y[j], acc[8 * i + j]) for i in range(8) for j in range(8)]
        return acc

    return _tuple_operation("outer_sum", 64, 3, compute)


def row_sums(rows, turned):
    """(acc, x, w, turn) -> acc[r] + sum over k < 32 of x[r, k] * w[k], by fused multiply-adds in order of k.

    x[r, k] is at shared address x + 128 r + 4 k. w[k] is at w + 128 k if turned; else in a row of 128 bytes
    at w whose 16-byte piece p is stored at p ^ turn. One operation, as `outer_sum`.
    """

    def compute(builder, values):
        acc, x, w, turn = values
        acc = [builder.extract_value(acc, r) for r in range(rows)]
        vector = ir.VectorType(F32, 4)

        def four(address):
            loaded = builder.load(builder.inttoptr(address, ir.PointerType(vector, 3)), align=16)
            return [builder.extract_element(loaded, I32(i)) for i in range(4)]

        def one(address):
            return builder.load(builder.inttoptr(address, ir.PointerType(F32, 3)), align=4)

        for q in range(8):
            if turned:
                weights = [one(builder.add(w, I32(128 * (4 * q + j)))) for j in range(4)]
            else:
                weights = four(builder.add(w, builder.shl(builder.xor(turn, I32(q)), I32(4))))
            for r in range(rows):
                for value, weight in zip(four(builder.add(x, I32(128 * r + 16 * q))), weights):
                    acc[r] = builder.fma(value, weight, acc[r])
        return acc

    return _tuple_operation("row_sums", rows, 4, compute)


# -- tensor cores --------------------------------------------------------------------------------------------


def _tied(name, template, width, operands):
    """An asm statement f(acc, *operands) -> acc whose `width` accumulators are updated in place.

    Accumulators are $0.. in the template (tied, so each occurs twice); operands start at $(2 * width).
    """
    constraints = ",".join(["=f"] * width + [str(i) for i in range(width)] + list(operands))
    tuples = types.UniTuple(types.float32, width)
    signature = tuples(tuples, *(NUMBA[c] for c in operands))

    def make(_):
        def codegen(context, builder, sig, values):
            struct = ir.LiteralStructType([F32] * width)
            kind = ir.FunctionType(struct, [F32] * width + [LLVM[c] for c in operands])
            statement = ir.InlineAsm(kind, template, constraints, side_effect=True)
            acc = [builder.extract_value(values[0], i) for i in range(width)]
            out = builder.call(statement, [*acc, *values[1:]])
            result = ir.Constant(context.get_value_type(tuples), ir.Undefined)
            for i in range(width):
                result = builder.insert_value(result, builder.extract_value(out, i), i)
            return result

        return signature, codegen

    return _intrinsic(name, 1 + len(operands), make)


def wgmma(n, dtype, form):
    """Asynchronous warpgroup product D (64 x n, float32) = A B + keep * D, 32 bytes of k.

    form "ss": (acc, descriptor A, descriptor B, keep), both K-major in shared memory; "mn": the same with
    both MN-major, "kn" with B alone (16-bit dtypes only); "rs": (acc, a0, a1, a2, a3, descriptor B, keep), A
    from registers. PTX ISA, wgmma.mma_async.
    """
    width = n // 2
    acc = ",".join(f"${i}" for i in range(width))
    first = 2 * width
    if form == "rs":
        a, b, keep = "{" + ",".join(f"${first + i}" for i in range(4)) + "}", first + 4, first + 5
        operands = "rrrrlr"
    else:
        a, b, keep = f"${first}", first + 1, first + 2
        operands = "llr"
    kind, k = ("tf32", 8) if dtype == "tf32" else (dtype, 16)
    major = {"ss": ", 0, 0", "kn": ", 0, 1", "mn": ", 1, 1", "rs": ", 0"}[form] if kind != "tf32" else ""
    return _tied(
        "wgmma",
        f"{{ .reg .pred p; setp.ne.b32 p, ${keep}, 0; "
        f"wgmma.mma_async.sync.aligned.m64n{n}k{k}.f32.{kind}.{kind} "
        f"{{{acc}}}, {a}, ${b}, p, 1, 1{major}; }}",
        width,
        operands,
    )


def mma(rows, columns, dtype):
    """(acc, A, B) -> acc + A B for rows x columns tiles m16n8 of mma.sync; A has 4 registers a tile, B has 2.

    Accumulator (m * columns + n) * 4 + i is element i of the fragment of tile (m, n). PTX ISA, mma.m16n8k16
    / m16n8k8.
    """
    shape = "m16n8k8" if dtype == "tf32" else "m16n8k16"
    template = (
        f"mma.sync.aligned.{shape}.row.col.f32.{dtype}.{dtype}.f32 "
        "{$0,$1,$2,$3}, {$8,$9,$10,$11}, {$12,$13}, {$0,$1,$2,$3};"
    )
    constraints = "=f,=f,=f,=f,0,1,2,3,r,r,r,r,r,r"

    def compute(builder, values):
        acc, a, b = values
        kind = ir.FunctionType(ir.LiteralStructType([F32] * 4), [F32] * 4 + [I32] * 6)
        statement = ir.InlineAsm(kind, template, constraints, side_effect=False)
        for m in range(rows):
            for n in range(columns):
                first = (m * columns + n) * 4
                inputs = [builder.extract_value(acc, first + i) for i in range(4)]
                inputs += [builder.extract_value(a, m * 4 + i) for i in range(4)]
                inputs += [builder.extract_value(b, n * 2 + i) for i in range(2)]
                out = builder.call(statement, inputs)
                yield from (builder.extract_value(out, i) for i in range(4))

    return _tuple_operation("mma", rows * columns * 4, 3, compute)


# -- memory by dtype -----------------------------------------------------------------------------------------


def load(dtype):
    """(address, predicate) -> the value at a global address as float32, 0.0 where the predicate is 0."""
    if dtype == "f32":
        return _assembly(
            "load", _predicated("mov.f32 $0, 0f00000000; @p ld.global.f32 $0, [$1];", 2), "f", "lr"
        )
    widen = {"f16": "cvt.f32.f16 $0, h;", "bf16": "cvt.u32.u16 w, h; shl.b32 w, w, 16; mov.b32 $0, w;"}[dtype]
    body = "mov.b16 h, 0; @p ld.global.b16 h, [$1]; " + widen
    return _assembly("load", _predicated(body, 2, ".reg .b16 h; .reg .b32 w;"), "f", "lr")


def store(dtype):
    """(address, value, predicate).

    Store a float32 value, rounded to nearest even, where the predicate is 1.
    """
    if dtype == "f32":
        return _assembly("store", _predicated("@p st.global.f32 [$0], $1;", 2), "", "lfr")
    body = f"cvt.rn.{dtype}.f32 h, $1; @p st.global.b16 [$0], h;"
    return _assembly("store", _predicated(body, 2, ".reg .b16 h;"), "", "lfr")


def store2(dtype):
    """(address, first, second, predicate): two neighbouring values in one aligned store."""
    if dtype == "f32":
        return _assembly("store2", _predicated("@p st.global.v2.f32 [$0], {$1, $2};", 3), "", "lffr")
    body = f"cvt.rn.{dtype}x2.f32 w, $2, $1; @p st.global.b32 [$0], w;"
    return _assembly("store2", _predicated(body, 3, ".reg .b32 w;"), "", "lffr")


def pack(dtype):
    """(low, high) -> two 16-bit values in one register."""
    return _assembly("pack", f"cvt.rn.{dtype}x2.f32 $0, $2, $1;", "r", "ff", pure=True)


def unpack(dtype):
    """register -> (low, high) as float32."""
    if dtype == "bf16":
        text = (
            "{ .reg .b32 a, b; shl.b32 a, $2, 16; and.b32 b, $2, 0xffff0000; mov.b32 $0, a; mov.b32 $1, b; }"
        )
    else:
        text = "{ .reg .b16 a, b; mov.b32 {a, b}, $2; cvt.f32.f16 $0, a; cvt.f32.f16 $1, b; }"
    return _assembly("unpack", text, "ff", "r", pure=True)


def copy_wait(pending):
    """() waits until at most `pending` of this thread's cp.async groups are unfinished."""
    return _assembly("copy_wait", f"cp.async.wait_group {pending};")


def wgmma_wait(pending):
    """() waits until at most `pending` of this warpgroup's wgmma groups are unfinished."""
    return _assembly("wgmma_wait", f"wgmma.wait_group.sync.aligned {pending};")


def registers(change, count):
    """() gives registers back ("dec") or takes them ("inc"), up to `count` a thread; by whole warpgroups."""
    return _assembly("registers", f"setmaxnreg.{change}.sync.aligned.u32 {count};")


def shuffle_xor(mask):
    """float32 value of the lane whose number differs by `mask`."""
    return _assembly("shuffle_xor", f"shfl.sync.bfly.b32 $0, $1, {mask}, 31, -1;", "f", "f")


FAMILIES = {
    f.__name__: f
    for f in (
        zeros, accumulate, outer_sum, row_sums, wgmma, mma, load, store, store2, pack, unpack, copy_wait,
        wgmma_wait, registers, shuffle_xor,
    )
}  # fmt: skip

_TMA = (
    "cp.async.bulk.tensor.{}d.shared::cluster.global.{}.mbarrier::complete_tx::bytes [$0], [$1, {{{}}}], [$2]"
)
_BARRIER = "shared::cta.b64"


def _table():
    ops = {}

    def add(name, *arguments, **options):
        ops[name] = _assembly(name, *arguments, **options)

    # values
    ops["shared_address"] = _intrinsic("shared_address", 1, _shared_address)
    ops["lt"] = _comparison("lt", "<", types.uint32)
    ops["equal"] = _comparison("equal", "==", types.uint32)
    ops["one_thread"] = _comparison("one_thread", "==", types.boolean)
    ops["bits"] = _bitcast("bits", "f", "r")
    ops["value"] = _bitcast("value", "r", "f")
    add("uniform", "shfl.sync.idx.b32 $0, $1, 0, 31, -1;", "r", "r")
    add("select", _predicated("selp.b32 $0, $1, $2, p;", 3), "r", "rrr", pure=True)
    add("choose", _predicated("selp.f32 $0, $1, $2, p;", 3), "f", "ffr", pure=True)
    add("maximum", "max.NaN.f32 $0, $1, $2;", "f", "ff", pure=True)
    # a > b, or either is NaN
    add("above", "{ .reg .pred p; setp.gtu.f32 p, $1, $2; selp.u32 $0, 1, 0, p; }", "r", "ff", pure=True)
    add(
        "rounded_tf32",
        "{ .reg .b32 a; add.u32 a, $1, 0x1000; and.b32 $0, a, 0xffffe000; }",
        "r",
        "r",
        pure=True,
    )
    add(
        "rest",
        "{ .reg .f32 a, b, c; mov.b32 a, $1; mov.b32 b, $2; sub.rn.f32 c, a, b; mov.b32 $0, c; }",
        "r",
        "rr",
        pure=True,
    )
    # global and shared memory
    add("load32", _predicated("mov.b32 $0, 0; @p ld.global.b32 $0, [$1];", 2), "r", "lr")
    add(
        "load16",
        _predicated("mov.b16 h, 0; @p ld.global.b16 h, [$1]; cvt.u32.u16 $0, h;", 2, ".reg .b16 h;"),
        "r",
        "lr",
    )
    add("store32", _predicated("@p st.global.b32 [$0], $1;", 2), "", "lrr")
    add("store16", _predicated("cvt.u16.u32 h, $1; @p st.global.b16 [$0], h;", 2, ".reg .b16 h;"), "", "lrr")
    wide = (
        "mov.b32 $0, 0; mov.b32 $1, 0; mov.b32 $2, 0; mov.b32 $3, 0; @p ld.global.v4.b32 {$0,$1,$2,$3}, [$4];"
    )
    add("load128", _predicated(wide, 5), "rrrr", "lr")
    pair = "mov.b32 $0, 0; mov.b32 $1, 0; @p ld.global.v2.b32 {$0,$1}, [$2];"
    add("load64", _predicated(pair, 3), "rr", "lr")
    add("store64", _predicated("@p st.global.v2.b32 [$0], {$1,$2};", 3), "", "lrrr")
    byte = "mov.b16 h, 0; @p ld.global.u8 h, [$1]; cvt.u32.u16 $0, h;"
    add("load8", _predicated(byte, 2, ".reg .b16 h;"), "r", "lr")
    add("store128", _predicated("@p st.global.v4.b32 [$0], {$1,$2,$3,$4};", 5), "", "lrrrrr")
    add("shared_load", "ld.shared.b32 $0, [$1];", "r", "r")
    add("shared_load16", "{ .reg .b16 h; ld.shared.b16 h, [$1]; cvt.u32.u16 $0, h; }", "r", "r")
    add("shared_load4", "ld.shared.v4.f32 {$0,$1,$2,$3}, [$4];", "ffff", "r")
    add("shared_store", "st.shared.b32 [$0], $1;", "", "rr")
    add("shared_store16", "{ .reg .b16 h; cvt.u16.u32 h, $1; st.shared.b16 [$0], h; }", "", "rr")
    # the smaller or larger of what is in memory and a value: of integers, so that the order does not matter
    for word in ("min", "max"):
        text = _predicated(f"@p red.shared.{word}.u32 [$0], $1;", 2)
        add(f"shared_{word}imum", text, "", "rrr")
    add("minimum64", _predicated("@p red.global.min.u64 [$0], $1;", 2), "", "llr")
    # asynchronous copies: shared destination, global source, bytes to read (0 fills with zeros)
    add("copy16", "cp.async.cg.shared.global [$0], [$1], 16, $2;", "", "rlr")
    add("copy4", "cp.async.ca.shared.global [$0], [$1], 4, $2;", "", "rlr")
    add("copy_commit", "cp.async.commit_group;")
    # mma.sync operands
    for suffix, how in (("", ""), ("_transposed", ".trans")):
        text = f"ldmatrix.sync.aligned.m8n8.x4{how}.shared.b16 {{$0,$1,$2,$3}}, [$4];"
        add(f"matrix_load{suffix}", text, "rrrr", "r")
    # barriers in shared memory
    add("barrier_init", f"mbarrier.init.{_BARRIER} [$0], $1;", "", "rr")
    add("barrier_init_fence", "fence.mbarrier_init.release.cluster;")
    add("barrier_expect", f"mbarrier.arrive.expect_tx.{_BARRIER} _, [$0], $1;", "", "rr")
    add("barrier_arrive", _predicated(f"@p mbarrier.arrive.{_BARRIER} _, [$0];", 1), "", "rr")
    wait = (
        f"{{ .reg .pred p;\nAGAIN:\nmbarrier.try_wait.parity.{_BARRIER} p, [$0], $1;\n"
        "@p bra READY;\nbra AGAIN;\nREADY: }"
    )
    add("barrier_wait", wait, "", "rr")
    # tensor memory accelerator: destination, map, barrier, coordinates from the fastest axis, tap offsets
    add("tma_tile", _TMA.format(2, "tile", "$3, $4") + ";", "", "rlrrr")
    add("tma_im2col2", _TMA.format(4, "im2col", "$3, $4, $5, $6") + ", {$7, $8};", "", "rlrrrrrhh")
    add("tma_im2col3", _TMA.format(5, "im2col", "$3, $4, $5, $6, $7") + ", {$8, $9, $10};", "", "rlrrrrrrhhh")
    add("tma_prefetch", "prefetch.tensormap [$0];", "", "l")
    # warpgroup products
    add("wgmma_fence", "wgmma.fence.sync.aligned;")
    add("wgmma_commit", "wgmma.commit_group.sync.aligned;")
    return ops


TABLE = _table()


def operation(family, *arguments):
    """The intrinsic of a family for these arguments."""
    return FAMILIES[family](*arguments)
