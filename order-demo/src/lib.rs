//! The order-fulfilment workload: business words over the client.
