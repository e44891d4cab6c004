//! What a report shows of a run or a campaign, for machines and for pages.
//!
//! Comes in: a campaign's report and its pace, or what `scenarios::page` has gathered of a run. Goes out:
//! [`run::RunPage`] and [`campaign::CampaignPage`], which are written as JSON, and JUnit. Never here: what
//! is true of a run, and files.

pub mod campaign;
pub mod junit;
pub mod run;
