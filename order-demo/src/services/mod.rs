//! The services as processes: each has its own store, its own consumer group and a small HTTP
//! door for whoever runs it.

pub mod admin;
pub mod config;
pub mod control;
pub mod dependency;
pub mod event;
pub mod http;
pub mod kit;
pub mod monolith;
pub mod outside;
pub mod prices;
pub mod rest;
pub mod run;
