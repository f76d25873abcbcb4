//! Tests of the program `bulla`, run as a user would.

mod backups;
mod checkpoints;
mod commands;
mod common;
mod content;
mod damage;
mod doctor;
mod drill;
mod follow;
mod habits;
mod legacy;
mod live;
mod owners;
mod picture;
mod purge;
mod put;
mod stress;
mod table;
