//! What can be made wrong on purpose, to see that it is found.

use clap::ValueEnum;
use sidekey_simulator::oracle::Standing;

use crate::arena::SUBJECTS;
use crate::image::Image;

/// What is made wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Plant {
    /// Each store is what the process before had left: all that the last one stored is missing.
    OldStore,
    /// No store says which refreshes were begun.
    NoIntents,
    /// A caller has another subject's handle.
    OtherHandle,
}

/// Makes it wrong, or nothing.
pub struct Saboteur {
    plant: Option<Plant>,
    before: Option<Image>,
}

impl Saboteur {
    /// One who makes this wrong.
    pub fn new(plant: Option<Plant>) -> Self {
        Self { plant, before: None }
    }

    /// The store as the oracle gets to see it.
    pub fn image(&mut self, mut image: Image) -> Image {
        match self.plant {
            Some(Plant::OldStore) => self.before.replace(image.clone()).unwrap_or(image),
            Some(Plant::NoIntents) => {
                for stored in image.values_mut() {
                    if matches!(stored.held.standing, Standing::InDoubt { .. }) {
                        stored.held.standing = Standing::Active;
                    }
                }
                image
            }
            Some(Plant::OtherHandle) | None => image,
        }
    }

    /// Who uses the handle of `subject`.
    pub fn caller(&self, subject: &'static str) -> &'static str {
        let is_swapped = self.plant == Some(Plant::OtherHandle) && subject == SUBJECTS[1];
        if is_swapped { SUBJECTS[0] } else { subject }
    }
}
