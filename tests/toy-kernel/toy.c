#ifdef BROKEN
#error this kernel cannot be compiled
#endif
int main(void)
{
	return 0;
}
