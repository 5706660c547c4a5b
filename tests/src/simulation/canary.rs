//! Builds in which one guarantee is missing. A simulation that does not notice proves nothing.

/// A guarantee that is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canary {
    /// The relay says that a message is accepted before it is durable: its disk lies about syncs.
    RelayForgets,
    /// A device acknowledges what it has not stored: its disk lies about syncs.
    DeviceForgets,
    /// A device acknowledges before it commits.
    EarlyAck,
    /// A device shows again what it has shown.
    NoDeduplication,
    /// The relay gives messages in another order than it took them.
    Disorder,
    /// A device's randomness begins again whenever it starts.
    SameRandomness,
    /// A device does not look at what the relay knows of it, so that an earlier copy of its store goes unnoticed.
    UnnoticedCopy,
    /// A device does not hear of messages that the relay has given up.
    NoNotices,
}

impl Canary {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::RelayForgets,
        Self::DeviceForgets,
        Self::EarlyAck,
        Self::NoDeduplication,
        Self::Disorder,
        Self::SameRandomness,
        Self::UnnoticedCopy,
        Self::NoNotices,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RelayForgets => "relay-forgets",
            Self::DeviceForgets => "device-forgets",
            Self::EarlyAck => "early-ack",
            Self::NoDeduplication => "no-deduplication",
            Self::Disorder => "disorder",
            Self::SameRandomness => "same-randomness",
            Self::UnnoticedCopy => "unnoticed-copy",
            Self::NoNotices => "no-notices",
        }
    }

    /// The one with a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|canary| canary.name() == name)
    }
}
