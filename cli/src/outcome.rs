//! What a command that did its work says about the log, as an exit code.

/// The state in which a command found or left a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Clean,
    /// The command ran to its end, and its output says what is wrong.
    Failed,
    TornTail,
    Corrupt,
}

impl Outcome {
    /// The exit code.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Failed => 1,
            Self::TornTail => 3,
            Self::Corrupt => 4,
        }
    }

    /// The outcome of a command that only shows a log: a torn tail is nothing unusual there.
    pub(crate) fn of_display(self) -> Self {
        if self == Self::TornTail { Self::Clean } else { self }
    }
}
