"""What serves now: the policies, their live bundles and canaries, kept true to files and audits."""
