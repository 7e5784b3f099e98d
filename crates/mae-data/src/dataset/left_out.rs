use std::fmt;

/// Files at the place of a data set that are no images of it, told so that none is lost in silence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// How many there are.
    pub count: usize,
    /// What they are, as it follows their number: ".heic files", "thumbnails in @eaDir".
    pub what: String,
    /// The name of the first.
    pub example: String,
    /// Why they are left out, and what can be done: "heic is not read; convert them to jpeg".
    pub reason: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LeftOut {
            count,
            what,
            example,
            reason,
        } = self;
        write!(f, "left out {count} {what}, the first {example}: {reason}")
    }
}
