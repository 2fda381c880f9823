//! Where ids and secrets get their randomness.

use crate::error::{Error, Result};

/// A source of random bytes. It fails rather than give weak ones (S-03).
#[derive(Clone, Default)]
pub(crate) enum Entropy {
    /// The operating system's generator.
    #[default]
    System,
    #[cfg(feature = "test-util")]
    Test(std::sync::Arc<Fill>),
}

#[cfg(feature = "test-util")]
pub(crate) type Fill = dyn Fn(&mut [u8]) -> std::io::Result<()> + Send + Sync;

impl Entropy {
    pub(crate) fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        match self {
            Self::System => getrandom::fill(bytes).map_err(Error::random),
            #[cfg(feature = "test-util")]
            Self::Test(fill) => fill(bytes).map_err(Error::random),
        }
    }
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            #[cfg(feature = "test-util")]
            Self::Test(_) => "Test",
        })
    }
}
