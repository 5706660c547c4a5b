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
    /// A device hands messages on in another order than the relay's.
    Disorder,
}

impl Canary {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::RelayForgets,
        Self::DeviceForgets,
        Self::EarlyAck,
        Self::NoDeduplication,
        Self::Disorder,
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
        }
    }

    /// The one with a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|canary| canary.name() == name)
    }
}
