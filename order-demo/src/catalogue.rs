//! The catalogue: what can be ordered, and the list price of each item per month.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::money::Cents;

/// One thing that can be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
pub enum Sku {
    /// A telephone line.
    PhoneLine,
    /// Further lines.
    ExtraLines,
    /// Internet over the telephone network.
    InternetDsl,
    /// Internet over fibre.
    InternetFibre,
    /// Virus and phishing protection.
    OnlineSecurity,
    /// Storage for backups.
    OnlineBackup,
    /// Insurance of devices.
    DeviceProtection,
    /// Help by telephone.
    TechSupport,
    /// Television.
    StreamingTv,
    /// Films.
    StreamingMovies,
}

impl Sku {
    /// All of them, in the order of invoices.
    pub const ALL: [Self; 10] = [
        Self::PhoneLine,
        Self::ExtraLines,
        Self::InternetDsl,
        Self::InternetFibre,
        Self::OnlineSecurity,
        Self::OnlineBackup,
        Self::DeviceProtection,
        Self::TechSupport,
        Self::StreamingTv,
        Self::StreamingMovies,
    ];

    /// The list price per month.
    #[must_use]
    pub const fn list_price(self) -> Cents {
        match self {
            Self::PhoneLine => Cents(2_000),
            Self::InternetDsl => Cents(2_500),
            Self::InternetFibre => Cents(5_000),
            Self::StreamingTv | Self::StreamingMovies => Cents(1_000),
            Self::ExtraLines
            | Self::OnlineSecurity
            | Self::OnlineBackup
            | Self::DeviceProtection
            | Self::TechSupport => Cents(500),
        }
    }

    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::PhoneLine => "PHONE-LINE",
            Self::ExtraLines => "EXTRA-LINES",
            Self::InternetDsl => "INTERNET-DSL",
            Self::InternetFibre => "INTERNET-FIBRE",
            Self::OnlineSecurity => "ONLINE-SECURITY",
            Self::OnlineBackup => "ONLINE-BACKUP",
            Self::DeviceProtection => "DEVICE-PROTECTION",
            Self::TechSupport => "TECH-SUPPORT",
            Self::StreamingTv => "STREAMING-TV",
            Self::StreamingMovies => "STREAMING-MOVIES",
        }
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}
