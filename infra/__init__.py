"""The CDK app: what Spotrelay is on AWS."""
