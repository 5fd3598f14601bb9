//! Work with files, which is waited for, but not without end: a volume that does not answer must not stop everything else.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{Clock, SystemClock};

/// So long it may take to look at all files, or to read them.
const DEADLINE: Duration = Duration::from_secs(10);

/// Does work on threads that may wait for a disk.
pub struct FileWork {
    deadline: Duration,
    /// Shared with what is under way.
    under_way: Arc<()>,
    is_late: bool,
}

impl Default for FileWork {
    fn default() -> Self {
        Self { deadline: DEADLINE, under_way: Arc::default(), is_late: false }
    }
}

impl FileWork {
    /// What came of it; the error says why nothing did. What has not ended by then goes on by itself: it cannot be stopped.
    pub async fn done<T: Send + 'static>(&mut self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let under_way = Arc::clone(&self.under_way);
        let working = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(under_way);
            done
        });
        // The deadline is about disks: it passes in real time, whichever clock the rest goes by.
        let done = tokio::select! {
            done = working => Some(done.map_err(|error| error.to_string())),
            () = SystemClock.sleep(self.deadline) => None,
        };
        self.is_late = done.is_none();
        if !self.is_late {
            // Where the files are now, they can be read; what still hangs was about where they were.
            self.under_way = Arc::default();
        }
        done.unwrap_or_else(|| {
            let limit = self.deadline.as_secs();
            Err(format!(
                "the files could not be read within {limit} s: the volume of one of them does not answer; they are read \
                 again once it does, or on `sidekey reload`"
            ))
        })
    }

    /// Whether what was done last has not ended in time.
    pub fn is_late(&self) -> bool {
        self.is_late
    }

    /// Whether something is still under way that was not waited for, and nothing was done since.
    pub fn is_hanging(&self) -> bool {
        Arc::strong_count(&self.under_way) > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_hangs_is_told_and_others_work_meanwhile() {
        let mut files = FileWork { deadline: Duration::from_millis(20), ..FileWork::default() };
        let (release, hangs) = std::sync::mpsc::channel::<()>();
        let why = files.done(move || hangs.recv()).await.expect_err("it hangs");
        assert!(why.starts_with("the files could not be read within 0 s: "), "{why}");
        assert!(files.is_late() && files.is_hanging());
        release.send(()).expect("it still waits");
        while files.is_hanging() {
            tokio::task::yield_now().await;
        }
        assert!(files.is_late(), "what it found is not known");

        let (release, hangs) = std::sync::mpsc::channel::<()>();
        files.done(move || hangs.recv()).await.expect_err("it hangs");
        files.deadline = DEADLINE;
        assert_eq!(files.done(|| 7).await, Ok(7));
        assert!(!files.is_late() && !files.is_hanging());
        drop(release);
    }
}
