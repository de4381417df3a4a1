/* Writes a letter into a file through a mapping: no call to write is made, and no time is set by hand. */
#include <fcntl.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
	int fd = argc > 1 ? open(argv[1], O_RDWR) : -1;
	char *map = fd < 0 ? MAP_FAILED : mmap(0, 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return 1;
	map[0] = 'E';
	return 0;
}
