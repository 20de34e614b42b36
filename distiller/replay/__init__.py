"""What would a policy have delivered, and cost, on logged traffic?"""
