"""Pictures of a training run as PNG files: matplotlib, imported when one is drawn; no window opens."""


def _figure(width, height, rows=1, columns=1):
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures need the package matplotlib: pip install 'fastconv[train]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def learning_curve(path, history, title=""):
    """Loss (logarithmic) and error over the epochs of `fit`'s history: training and, if any, validation."""
    figure, axes = _figure(9, 3.6, columns=2)
    epochs = [entry["epoch"] for entry in history]
    for axis, name, label in ((axes[0, 0], "loss", "loss"), (axes[0, 1], "accuracy", "error (%)")):
        for key, legend in ((name, "training"), (f"val_{name}", "validation")):
            if all(entry[key] is not None for entry in history):
                axis.plot(
                    epochs,
                    [100 * (1 - entry[key]) if name == "accuracy" else entry[key] for entry in history],
                    label=legend,
                )
        axis.set(xlabel="epoch", ylabel=label)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    axes[0, 0].set_yscale("log")
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def confusion_matrix(path, counts, title=""):
    """The counts `(true, predicted)` of `train.confusion_matrix`; colours show the mistakes."""
    classes = len(counts)
    figure, axes = _figure(1.5 + 0.5 * classes, 1.2 + 0.5 * classes)
    axis = axes[0, 0]
    mistakes = counts.copy()
    mistakes[range(classes), range(classes)] = 0
    top = max(int(mistakes.max()), 1)
    axis.imshow(mistakes, cmap="Reds", vmin=0, vmax=top)
    for row in range(classes):
        for column in range(classes):
            if counts[row, column]:
                axis.text(
                    column,
                    row,
                    counts[row, column],
                    ha="center",
                    va="center",
                    color="white" if mistakes[row, column] > 0.6 * top else "black",
                )
    axis.set(xlabel="predicted", ylabel="true", xticks=range(classes), yticks=range(classes), title=title)
    figure.savefig(path, dpi=120)


def samples(path, images, labels, predictions, title="", columns=8, rows=5):
    """Images `(N, C, H, W)` with what the network says; the mistakes first, in red with the truth."""
    order = sorted(range(len(images)), key=lambda index: labels[index] == predictions[index])[
        : rows * columns
    ]
    figure, axes = _figure(1.1 * columns, 1.35 * rows, rows, columns)
    for axis in axes.flat:
        axis.axis("off")
    for axis, index in zip(axes.flat, order):
        image = images[index]
        axis.imshow(image[0] if len(image) == 1 else image.transpose(1, 2, 0), cmap="gray_r")
        right = labels[index] == predictions[index]
        axis.set_title(
            f"{predictions[index]}" if right else f"{predictions[index]}, is {labels[index]}",
            color="black" if right else "red",
            fontsize=10,
        )
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
