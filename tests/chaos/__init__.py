"""Does a platform keep its promises while its parts are killed, frozen and cut off?"""
