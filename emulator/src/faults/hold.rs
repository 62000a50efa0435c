//! A call that waits for whoever wrote the plan.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Where calls wait, and where a test learns that one does. Clones are the same hold.
#[derive(Debug, Clone)]
pub struct Hold(Arc<Gates>);

#[derive(Debug)]
struct Gates {
    reached: Semaphore,
    released: Semaphore,
}

impl Default for Hold {
    fn default() -> Self {
        Self(Arc::new(Gates { reached: Semaphore::new(0), released: Semaphore::new(0) }))
    }
}

impl PartialEq for Hold {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Hold {}

impl Hold {
    /// A hold that nothing has reached.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until a call waits here; each is seen once.
    pub async fn reached(&self) {
        // The semaphores are never closed.
        if let Ok(permit) = self.0.reached.acquire().await {
            permit.forget();
        }
    }

    /// Lets the calls that wait go on, and those that come.
    pub fn release(&self) {
        self.0.released.add_permits(1);
    }

    /// The call's side.
    pub(crate) async fn wait(&self) {
        self.0.reached.add_permits(1);
        // Given back when it is dropped, so that one release is for all.
        drop(self.0.released.acquire().await);
    }
}
