"""DNS at both ends: intercepted queries on the client, the resolvers' side at the exit."""
