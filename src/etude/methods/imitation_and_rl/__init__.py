"""Between imitation and reinforcement: demonstrations that steer, join or replace attempts."""
