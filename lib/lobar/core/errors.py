"""What a job can end with besides success, and the exit status that tells Argo whether a retry may help."""


class LobarError(Exception):
    """Base of the errors whose text is written for the person who can fix the cause.

    `setting` names the setting to change, if there is one (`max_rejected`); a job adds its own option for it.
    """

    status = 1

    def __init__(self, text: str, setting: str = "") -> None:
        super().__init__(text)
        self.setting = setting


class InputError(LobarError):
    """The input or an option is wrong, and a retry cannot help.

    The text names the file, the row or the setting, what was found and what to do, in one line.
    """

    status = 2


class AbsentError(InputError):
    """An object is not there."""


class TakenError(InputError):
    """An object that was to be created is there already."""


class OutsideError(LobarError):
    """Something outside failed (storage, network) or the process was interrupted; a retry may help."""

    status = 75
