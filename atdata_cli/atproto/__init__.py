"""The AT Protocol: records, and what stores and indexes need to keep them in a personal data server."""
