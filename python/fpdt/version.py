"""The version of this package; equal to the npm package's, which the controller checks in hello."""

VERSION = "0.1.0"
