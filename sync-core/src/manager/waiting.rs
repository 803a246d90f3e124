//! Waiting for how a node stands, without polling.

use std::time::Duration;

use super::{ManagerError, Status, SyncManager};

impl SyncManager {
    /// Waits until the node's status is as `holds` wants it, and answers that status. It is looked
    /// at anew after everything that happens.
    ///
    /// # Errors
    ///
    /// [`ManagerError::TimedOut`] after `timeout`.
    pub async fn status_when(
        &self,
        timeout: Duration,
        mut holds: impl FnMut(&Status) -> bool,
    ) -> Result<Status, ManagerError> {
        let mut progressed = self.inner.progressed.clone();
        let waited = async {
            loop {
                progressed.mark_unchanged();
                let status = self.status().await?;
                if holds(&status) {
                    return Ok(status);
                }
                progressed.changed().await.map_err(|_| ManagerError::Closed)?;
            }
        };
        tokio::time::timeout(timeout, waited)
            .await
            .unwrap_or_else(|_| Err(ManagerError::TimedOut("the node's status is not as expected; see why()".into())))
    }
}
