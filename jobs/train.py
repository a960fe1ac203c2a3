"""train: train a segmentation network on a dataset."""

from typing import Annotated

import typer


def main(
    dataset: Annotated[str, typer.Option(help="folder of a dataset made by label-index")],
    out: Annotated[str, typer.Option(help="folder of the new model")],
    recipe: Annotated[
        str, typer.Option(help="name of a recipe (demo, notebook, rsna), or path or URL of a YAML file")
    ],
    changes: Annotated[
        str, typer.Option("--set", help="fields of the recipe to change: key=value,key=value")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="random seed of weights, order and flips")] = 0,
) -> None:
    from lobar.storage.layout import Dataset, Model
    from lobar.training import recipe as recipes

    chosen = recipes.load(recipe, changes)

    from lobar.training import trainer  # after the recipe is checked, because it takes seconds

    model = Model(out)
    training = trainer.run(Dataset(dataset), model, chosen, seed)
    print(f"model: {model.url}\n  {training.parameters:,} parameters, {chosen.epochs} epochs")
    if training.rejected:
        names = ", ".join(rejection.patient_id for rejection in training.rejected[:3])
        print(f"  {len(training.rejected)} images left out: {names}; all are in {model.training}")
