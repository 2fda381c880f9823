//! The end of the process, for responses that would go on for ever.

use tokio::sync::watch;

/// Clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Closing(watch::Sender<bool>);

impl Closing {
    pub(crate) fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it begins.
    pub(crate) async fn begun(&self) {
        // It fails when there is no sender, and here is one.
        let _ = self.0.subscribe().wait_for(|begun| *begun).await;
    }
}
